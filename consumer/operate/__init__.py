"""What operators ask beside the running consumer: dead letters, the audit trail, whether all is ready."""
