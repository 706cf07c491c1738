"""Chest X-rays: does a child's chest film show pneumonia?"""
