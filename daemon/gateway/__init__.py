"""The gateway role: clients, their streams, and what stands behind them. It imports no engine and no speaker."""
