"""The leaderboard's page in a real browser."""
