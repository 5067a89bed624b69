"""Parts of `runtime.generate`: inputs, prompts, the choice of a token, results."""
