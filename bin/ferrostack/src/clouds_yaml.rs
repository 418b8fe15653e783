//! What a person needs to use the cloud: `clouds.yaml`, and what to type next.

use crate::{Secrets, Settings, endpoints, state};
use base::Result;

/// Writes `clouds.yaml` with the clouds `ferrostack` (the administrator), `ferrostack-system` and `demo`.
pub fn write(settings: &Settings, secrets: &Secrets) -> Result<()> {
    let url = format!("{}/v3", endpoints::identity_url(settings));
    let region = &settings.options.region;
    let cloud = |name: &str, user: &str, password: &base::Secret, scope: &str| {
        format!(
            "  {name}:\n    auth:\n      auth_url: {url}\n      username: {user}\n      password: {}\n      \
             user_domain_id: default\n{scope}    region_name: {region}\n    identity_api_version: 3\n",
            password.expose()
        )
    };
    let project = |name: &str| format!("      project_name: {name}\n      project_domain_id: default\n");
    let text = format!(
        "clouds:\n{}{}{}",
        cloud("ferrostack", "admin", &secrets.admin_password, &project("admin")),
        cloud("ferrostack-system", "admin", &secrets.admin_password, "      system_scope: all\n"),
        cloud("demo", "demo", &secrets.demo_password, &project("demo")),
    );
    state::write_private(&settings.state.join("clouds.yaml"), &text)
}

/// What to type next.
pub fn next_steps(settings: &Settings) -> String {
    let clouds = settings.state.join("clouds.yaml");
    let clouds = clouds.display();
    let url = endpoints::identity_url(settings);
    let demo = if settings.options.demo {
        "
  openstack network create mine && openstack subnet create mine --network mine --subnet-range 192.168.10.0/24
  openstack router create way && openstack router set way --external-gateway public && openstack router add subnet way mine
  openstack keypair create key > key && chmod 600 key
  openstack security group rule create default --protocol tcp --dst-port 22
  openstack server create first --image cirros --flavor m1.tiny --network mine --key-name key --wait
  openstack floating ip create public
  openstack server add floating ip first ADDRESS && ssh -i key cirros@ADDRESS
"
    } else {
        "\n"
    };
    format!(
        "The cloud answers at {url}. To use it:\n
  export OS_CLIENT_CONFIG_FILE={clouds} OS_CLOUD=demo     # or OS_CLOUD=ferrostack for the administrator{demo}"
    )
}
