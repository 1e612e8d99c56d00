"""What a training leaves behind: run directories, model files, their options."""
