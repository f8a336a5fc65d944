"""What each subcommand does: arguments to a few calls into the package, results to text or JSON.

Every public function takes the arguments that `cli.py` parsed. Heavy imports are inside the functions: wrong
options and commands that only read a study do not wait for torch.
"""
