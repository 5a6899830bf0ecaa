"""What tests of labhub, and of programs that use it, are made of. Never imported at run time."""
