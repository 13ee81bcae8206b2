#!/bin/sh
# Make the secrets that docker-compose.yml names, in deploy/secrets or the folder that is given.
set -eu
folder=${1:-deploy/secrets}
if [ -e "$folder/database_url" ]; then
    echo "$folder holds secrets already" >&2
    exit 1
fi

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# Each container reads its own under an account of its own: the folder keeps others on this host out.
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"
postgres=$(random) valkey=$(random) access_key=$(random) secret_key=$(random)
printf '%s' "$postgres" > postgres_password
printf 'postgresql://latentq:%s@postgres:5432/latentq' "$postgres" > database_url
printf 'requirepass %s\n' "$valkey" > valkey.conf
printf 'redis://:%s@valkey:6379/0' "$valkey" > redis_url
printf '%s' "$access_key" > s3_access_key
printf '%s' "$secret_key" > s3_secret_key
cat > seaweedfs_s3.json << END
{"identities": [{
  "name": "latentq",
  "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}],
  "actions": ["Read:latentq", "Write:latentq", "List:latentq"]
}]}
END
printf 'admin.password=%s\n' "$(random)" > seaweedfs.options
random > grafana_password
chmod 444 ./*
