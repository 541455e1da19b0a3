"""Strategies, which only decide, and what runs them: backtest, runner, supervisor."""
