//! The examples at the end of `--help` and of the manual pages, by command. A test parses every line.

pub const PROGRAM: &str = "\
Examples:
  footfall                                     serve, by config/footfall.toml or the defaults
  footfall --config /etc/footfall/footfall.toml check-config
  FOOTFALL_STORE__URL=redis://127.0.0.1:6379 footfall
  FOOTFALL_LOG=info,footfall::totals=debug footfall
  footfall print-config --defaults > footfall.toml     start a configuration of your own

Files: The configuration is --config FILE, else the file that FOOTFALL_CONFIG names, else config/footfall.toml, else /etc/footfall/footfall.toml, else the compiled-in defaults. Beside it may be sites.d/*.toml with further sites, and the file environment with variables of the service. What is counted is kept in the directory data_dir, and totals in Redis where store.url says so.

Environment: Every setting is a variable too, which wins over the file: FOOTFALL_STORE__URL is store.url. FOOTFALL_CONFIG names the configuration file. FOOTFALL_LOG, else RUST_LOG, is the log's level, also by part.

Exit status: 0 done; 1 the start failed, not healthy, not done, or totals that disagree; 64 the configuration or the arguments are refused.";

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
  footfall print-config --defaults > footfall.toml     every key with its explanation, to begin a file of your own";

pub const SNIPPET: &str = "\
Example:
  footfall snippet demo";

pub const HEALTHCHECK: &str = "\
Examples:
  footfall healthcheck
  FOOTFALL_ADMIN_LISTEN=127.0.0.1:9081 footfall healthcheck";

pub const DOCTOR: &str = "\
Examples:
  footfall doctor                              the service: store, disk, settings, refusals
  footfall doctor https://www.baolamdong.vn/   and a page: its line, and what becomes of a visit
  footfall doctor https://www.baolamdong.vn/ --address 203.0.113.9 --user-agent curl/8.5

It counts nothing. Lines that begin with [-] are to be looked at: exit code 1.";

pub const DRAIN: &str = "\
Example, for an instance that is taken away for good:
  systemctl stop footfall && footfall drain --config /etc/footfall/footfall.toml";

pub const VERIFY: &str = "\
Examples:
  footfall verify
  footfall verify --site demo --json
  footfall verify --store embedded:/backup/2026-11-24/totals.redb";

pub const BACKFILL: &str = "\
Examples:
  footfall backfill --site demo --dry-run /var/log/nginx/access.log /var/log/nginx/access.log.1
  footfall backfill --site demo --until 2026-11-22 web1.log.gz web2.log.gz
  zstdcat access.log.zst | footfall backfill --site demo -

Give all logs of a day together, in any order: those of several servers, and those that were rotated. They are merged by time. Plain and gzip, common, combined and JSON (nginx, Caddy) are told apart by themselves.

A day is entered when a later line follows it, or with --until, and where neither beacons nor an entry cover it. The same logs again change nothing. footfall entries undo N takes a day back.";

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

pub const IMPORT: &str = "\
Examples:
  footfall import old-counter.csv --site demo --dry-run
  footfall import old-counter.csv --site demo --why moved
  footfall import days.csv --roll-up           longer buckets follow from the days
  footfall import corrections.json --add

A row says what its bucket shall show now (or when the day of --as-of began); what is counted later comes on top:
site,total,period,bucket,page,value
demo,visits,all,,,1316656
demo,visits,month,current,,53735
demo,views,all,,/bai-viet/1.html,12
JSON is a list of objects with these members, or one object a line. Numbers are written with digits alone.";

pub const EXPORT: &str = "\
Examples:
  footfall export --site demo totals.csv
  footfall export --format jsonl > totals.jsonl

The columns are those of import, which reads the file as it is: value is what is shown, entered is the part of it that was not counted but entered.";

pub const ADJUST: &str = "\
Examples:
  footfall adjust --site demo --day 2026-11-24 visits -250 --why robot
  footfall adjust --site demo --day current --page /bai-viet/1.html views +12 --dry-run";

pub const ENTRIES: &str = "\
Example:
  footfall entries --site demo";

pub const ENTRIES_SHOW: &str = "\
Example:
  footfall entries show 7 --site demo";

pub const ENTRIES_UNDO: &str = "\
Examples:
  footfall entries undo 7 --dry-run
  footfall entries undo 7 --site demo --why twice";

pub const PAGES_MOVE: &str = "\
Examples:
  footfall pages move --site demo /tin/1.html /bai-viet/1.html
  footfall pages move --site demo --file moved.csv --why renamed
  footfall pages move --site demo --undo /tin/1.html";

pub const PAGES_LIST: &str = "\
Example:
  footfall pages list --site demo";

pub const ERASE: &str = "\
Examples:
  footfall erase --site demo --page /bai-viet/1.html --why asked --dry-run
  footfall erase --site demo --whole-site --why ended";

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
  footfall man --into /usr/local/share/man";
