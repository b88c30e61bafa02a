"""The settings of one concern each; `conman.config.Settings` is all of them together."""
