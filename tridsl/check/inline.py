"""An op's call as a stage."""
def called(*a):
    raise NotImplementedError
