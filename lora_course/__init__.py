"""LoRA, Claim by Claim: the helper package of the course; see README.md for its house."""
