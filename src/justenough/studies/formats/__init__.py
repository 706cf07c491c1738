"""Number formats: what rounding does to arrays, rankings, half-lives and bytes."""
