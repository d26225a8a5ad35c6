"""What a person sees while it runs: news, progress bars, tables. Knows nothing of builds."""
