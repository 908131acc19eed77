"""What each way of training holds besides the activations: one file a runner, formulas with the library's file and line."""
