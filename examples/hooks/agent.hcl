vault {
  address = "https://vault.example:8200"
}
auto_auth {
  method "approle" {
    config = {
      role_id_file_path   = "/etc/payments/role-id"
      secret_id_file_path = "/run/payments/secret-id"
    }
  }
}
template_config {
  static_secret_render_interval = "1m"   # default 5m
}
template {
  contents             = "{{ with secret \"kv/data/wise/production\" }}{{ .Data.data | toJSON }}{{ end }}"
  destination          = "/run/payments/wise.json"
  create_dest_dirs     = false
  perms                = "0600"   # default 0644
  backup               = false    # default true: the previous private key stays beside the new one
  error_on_missing_key = true
  exec {
    command = ["/bin/sh", "-c", "/opt/payments/bin/wise-creds validate production --live --config /etc/payments/wise-creds.toml && systemctl try-reload-or-restart payments.service"]
    timeout = "1m"
  }
}
