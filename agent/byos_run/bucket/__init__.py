"""The store, no jobs: the only room that imports boto3, botocore and urllib3."""
