//! The program: what a person types, and nothing of what a cloud does.

use base::{Result, config::Config};
use clap::{Args, Parser, Subcommand};
use ferrostack::{
    Settings, background, clean, database, doctor, identity, operator, options, roles::Roles, routes, status,
    trace,
};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Rows, bodies and messages are many short texts, made on one thread and given back on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All of OpenStack in one program.
#[derive(Parser)]
#[command(name = "ferrostack", version, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a cloud: every service in this process, guests and networks on this machine (needs root).
    Run(Run),
    /// Make this machine a host of a cloud, with a token that `ferrostack host token` printed on a control node.
    Join(Join),
    /// Which hosts belong to the cloud whose control node runs on this machine.
    #[command(subcommand)]
    Host(Host),
    /// Stop the cloud that runs on a state directory; its guests go on.
    Stop(Common),
    /// Say whether the cloud answers, service by service.
    Status(Common),
    /// Say where an operation is and what it waits for, or how it ended: by the id of its request (`req-…`), or of the
    /// server or volume.
    Trace {
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Say what is missing on this machine, and how to mend it.
    Doctor,
    /// Print every operation of every service.
    Routes,
    /// Print every option with its meaning and default, as a configuration file.
    Config,
    /// Remove a stopped cloud and every trace of it on this machine.
    Clean(Common),
    /// Move the state of a stopped cloud to another database.
    #[command(subcommand)]
    Db(Database),
    /// Look before another version of this program runs a cloud.
    #[command(subcommand)]
    Upgrade(Upgrade),
    /// Put everything of the control plane into a new directory: databases, keys, images. The cloud may run.
    Backup {
        /// The directory to make.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Leave the bytes of images out.
        #[arg(long)]
        without_images: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Put a backup back, where no cloud is.
    Restore {
        /// What `ferrostack backup` made.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// What an operator does to users' accounts and keys from outside.
    #[command(subcommand)]
    Identity(Identity),
}

#[derive(Subcommand)]
enum Database {
    /// Copy every table to an empty database, `postgres://user:password@host`. The cloud must be stopped.
    Copy {
        #[arg(long, value_name = "URL")]
        to: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
enum Upgrade {
    /// Say what the first start of this program would do to the databases; an error when a newer one has used them.
    Check(Common),
}

#[derive(Args)]
struct Join {
    /// Where a control node is, `https://control:8799`.
    url: String,
    #[arg(long)]
    token: String,
    /// What this machine is to be: compute, network, storage, or several with commas between.
    #[arg(long, value_name = "ROLES", default_value = "compute")]
    role: String,
    /// Its name in the cloud. Without it: the machine's own.
    #[arg(long)]
    name: Option<String>,
    /// The address at which other hosts reach it. Without it: the one from which it reaches the control node.
    #[arg(long)]
    address: Option<IpAddr>,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Host {
    /// Print a token with which one machine may join.
    Token {
        /// How long it is good for. Without it: as the configuration says.
        #[arg(long)]
        minutes: Option<u64>,
        /// Roles that a machine may have that joins by it. Without it: any.
        #[arg(long, value_name = "ROLES", default_value = "")]
        role: String,
        #[command(flatten)]
        common: Common,
    },
    /// Make a certificate, with its key, of the authority that hosts believe: for the message broker. The cloud need not
    /// run.
    Certificate {
        /// The name or the address by which hosts reach it.
        name: String,
        /// Where authority.pem, certificate.pem and key.pem go.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Print every host and whether it lives.
    List(Common),
    /// Empty a host: nothing new comes to it, its servers, volumes, DHCP servers and routers go elsewhere as far as they
    /// can. Waits until it is empty or what is left cannot go; stopped or repeated, it does no harm.
    Drain {
        #[command(flatten)]
        host: OneHost,
        /// Return at once; `ferrostack host list` says what is left.
        #[arg(long)]
        background: bool,
    },
    /// Let new things come to a host that was drained.
    Resume(OneHost),
    /// Take an empty host out of the cloud: its agents end and its certificate is refused.
    Remove {
        #[command(flatten)]
        host: OneHost,
        /// Also one that is not empty: what it has is lost.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
struct OneHost {
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Identity {
    /// Make what a cloud begins with (domain, roles, admin, catalog) without running it. What is there stays.
    Bootstrap(Common),
    /// Give the admin a new random password, enabled and unlocked. The cloud must be stopped.
    ResetAdminPassword(Common),
    /// A new key for tokens. A running cloud sees it within a minute; tokens stay good.
    Rotate(Common),
    /// A new key for stored secrets, which are all encrypted anew. The cloud must be stopped.
    RotateCredentialKeys(Common),
    /// Forget what has ended: revocations, trusts, OAuth 1 tokens. A running cloud does so by itself.
    Purge(Common),
    /// Say whom a mapping's rules make of an assertion, without any cloud.
    MappingTest {
        /// The mapping as JSON: `{"rules": [...]}`, or the rules alone.
        #[arg(long, value_name = "FILE")]
        rules: PathBuf,
        /// The assertion: lines of `attribute: value`, several values split by semicolons.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// Everything true but the host: hypervisor, network and disks are pretended. Needs no root.
    #[arg(long)]
    simulate: bool,
    /// What runs in this process: all, control, compute, network, storage, or several with commas between. Without it:
    /// the roles with which this machine joined a cloud, or all.
    #[arg(long, value_name = "ROLES")]
    role: Option<String>,
    /// The address to bind.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Return when the cloud is ready, and leave it running.
    #[arg(long)]
    background: bool,
}

#[derive(Args)]
struct Common {
    /// Where everything of the cloud is kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/ferrostack")]
    state: PathBuf,
    /// The configuration file. Without it: ferrostack.toml in the state directory, when there is one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Line::parse().command {
        Command::Run(run) if run.background => background::start(&run.common.state),
        Command::Run(run) => foreground(run),
        Command::Join(join) => {
            let (name, state) = (join.name.as_deref(), &join.common.state);
            operator::join(state, &join.url, &join.token, &join.role, name, join.address)
        }
        Command::Host(command) => of_hosts(command),
        Command::Db(Database::Copy { to, common }) => {
            settings_of(&common).and_then(|settings| database::copy(&settings, &to))
        }
        Command::Upgrade(Upgrade::Check(common)) => {
            settings_of(&common).and_then(|settings| database::check(&settings))
        }
        Command::Backup { to, without_images, common } => {
            settings_of(&common).and_then(|settings| database::backup(&settings, &to, !without_images))
        }
        Command::Restore { from, common } => {
            settings_of(&common).and_then(|settings| database::restore(&settings, &from))
        }
        Command::Stop(common) => background::stop(&common.state),
        Command::Status(common) => status::print(&common.state),
        Command::Trace { id, common } => {
            settings_of(&common).and_then(|settings| trace::print(&settings, &id))
        }
        Command::Doctor => doctor::print(),
        Command::Routes => print(&routes::table()),
        Command::Config => print(&options::describe()),
        Command::Clean(common) => load(&common).and_then(|config| clean::everything(&common.state, &config)),
        Command::Identity(command) => of_identity(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferrostack: {}", error.message);
            ExitCode::FAILURE
        }
    }
}

fn foreground(run: Run) -> Result<()> {
    let config = load(&run.common)?;
    let mut settings = Settings::new(&run.common.state, run.listen, run.simulate, config)?;
    settings.roles = match &run.role {
        Some(names) => Roles::parse(names.split(','))?,
        None => ferrostack::roles_of(&run.common.state)?,
    };
    base::logging::init(&settings.options.log);
    ferrostack::run(settings)
}

fn settings_of(common: &Common) -> Result<Settings> {
    identity::settings(&common.state, load(common)?)
}

fn of_hosts(command: Host) -> Result<()> {
    let settings = settings_of;
    match command {
        Host::Token { minutes, role, common } => operator::token(&settings(&common)?, minutes, &role),
        Host::Certificate { name, to, common } => operator::certificate(&settings(&common)?, &name, &to),
        Host::List(common) => operator::list(&settings(&common)?),
        Host::Drain { host, background } => operator::drain(&settings(&host.common)?, &host.name, background),
        Host::Resume(host) => operator::resume(&settings(&host.common)?, &host.name),
        Host::Remove { host, force } => operator::remove(&settings(&host.common)?, &host.name, force),
    }
}

fn of_identity(command: Identity) -> Result<()> {
    let (work, common): (fn(&Settings) -> Result<()>, Common) = match command {
        Identity::Bootstrap(common) => (identity::bootstrap, common),
        Identity::ResetAdminPassword(common) => (identity::reset_admin_password, common),
        Identity::Rotate(common) => (identity::rotate, common),
        Identity::RotateCredentialKeys(common) => (identity::rotate_credential_keys, common),
        Identity::Purge(common) => (identity::purge, common),
        Identity::MappingTest { rules, input } => return identity::mapping_test(&rules, &input),
    };
    work(&identity::settings(&common.state, load(&common)?)?)
}

fn load(common: &Common) -> Result<Config> {
    let beside = common.state.join("ferrostack.toml");
    let path = common.config.as_deref().or(beside.exists().then_some(beside.as_path()));
    let config = Config::load(path.map(Path::new), std::env::vars())?;
    options::check(&config)?;
    Ok(config)
}

fn print(text: &str) -> Result<()> {
    use std::io::Write;
    // A reader that has seen enough (`ferrostack routes | head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
