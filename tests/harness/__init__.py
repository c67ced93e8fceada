"""What several tests share: running daemons, recorded and made-up mels, waits, snapshots."""
