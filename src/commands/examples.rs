//! The examples at the end of `--help` and of the manual pages, by command. A test parses every line.

pub const PROGRAM: &str = "\
Examples:
  footfall                                     serve, by config/footfall.toml or the defaults
  footfall --config /etc/footfall/footfall.toml check-config
  FOOTFALL_STORE__URL=redis://127.0.0.1:6379 footfall
  FOOTFALL_LOG=info,footfall::totals=debug footfall
  footfall print-config > footfall.toml        start a configuration of your own

Variables: FOOTFALL_CONFIG names the configuration file; FOOTFALL_LOG, else RUST_LOG, is the log's level, also by part; every setting is a variable too: FOOTFALL_STORE__URL is store.url.

Exit codes: 0 done; 1 the start failed, not healthy, not done, or totals that disagree; 64 the configuration or the arguments are refused.";

pub const SERVE: &str = "\
Examples:
  footfall serve --config /etc/footfall/footfall.toml
  FOOTFALL_LISTEN=0.0.0.0:8080 FOOTFALL_DATA_DIR=/var/lib/footfall footfall serve";

pub const CHECK_CONFIG: &str = "\
Example, before a restart:
  footfall check-config --config /etc/footfall/footfall.toml && systemctl restart footfall";

pub const PRINT_CONFIG: &str = "\
Examples:
  footfall print-config                        what differs from the defaults says where it is set
  footfall print-config > footfall.toml";

pub const SNIPPET: &str = "\
Example:
  footfall snippet demo";

pub const HEALTHCHECK: &str = "\
Examples:
  footfall healthcheck
  FOOTFALL_ADMIN_LISTEN=127.0.0.1:9081 footfall healthcheck";

pub const DRAIN: &str = "\
Example, for an instance that is taken away for good:
  systemctl stop footfall && footfall drain --config /etc/footfall/footfall.toml";

pub const VERIFY: &str = "\
Examples:
  footfall verify
  footfall verify --site demo --json
  footfall verify --store embedded:/backup/2026-11-24/totals.redb";

pub const BACKUP: &str = "\
Example:
  footfall backup /var/lib/footfall/backup-2026-11-24";

pub const RESTORE: &str = "\
Example, with the service stopped:
  footfall restore /var/lib/footfall/backup-2026-11-24";

pub const MIGRATE: &str = "\
Examples:
  footfall migrate store redis://127.0.0.1:6379
  footfall migrate redis://127.0.0.1:6379 embedded
  footfall migrate store @/etc/footfall/new-store --resume";

pub const RETIRE: &str = "\
Example:
  footfall retire 7f3a9c0d5e21b846";

pub const REFILL: &str = "\
Examples:
  footfall store refill --dry-run
  footfall store refill";

pub const ACCEPT_EMPTY: &str = "\
Examples:
  footfall store accept-empty --dry-run
  footfall store accept-empty";

pub const COMPLETIONS: &str = "\
Examples:
  footfall completions bash > /usr/share/bash-completion/completions/footfall
  footfall completions zsh > /usr/share/zsh/vendor-completions/_footfall
  footfall completions fish > /usr/share/fish/vendor_completions.d/footfall.fish";

pub const MAN: &str = "\
Examples:
  footfall man > footfall.1 && man ./footfall.1
  footfall man --into /usr/local/share/man/man1";
