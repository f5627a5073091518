"""Rules for summaries: their options, their prompts, and the pieces of a transcript."""
