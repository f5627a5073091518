"""Transactions of the task store, one module for each subject."""
