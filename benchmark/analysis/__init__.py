"""Statistics, the leaderboard, claims and costs: numbers from result files."""
