"""The parts of `runtime.generate`: which inputs take what, prompts, and the choice of a token."""
