"""MLICv2 and MLIC++ at full size, torch networks in CompressAI's vocabulary: for research, not for deployment."""
