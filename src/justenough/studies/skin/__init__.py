"""Skin lesions: which of seven kinds does a dermatoscopic image show?"""
