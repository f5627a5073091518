"""Connections to the database, and the identity of the database behind them."""
