"""Which weights of four signals predict importance, and how sure can one be? Eight analyses."""
