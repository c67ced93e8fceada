"""The processes behind the gateway as it sees them: the engines, near and far, and the speaker."""
