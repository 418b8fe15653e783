//! Runs a command of the host with limits on time and output.
