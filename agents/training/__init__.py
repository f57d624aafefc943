"""What training runs of any agent share: settings, folder, log, checkpoints, validation, the command."""
