"""What a run is, before anything runs: protocols, studies, arms, runs and plans. Nothing here
imports torch or timm."""
