"""The embedded demonstration: is a lung nodule drawn by a radiologist likely to be malignant?"""
