//! Who may do what: roles in the account's project, and the access list of a container.

use crate::{
    Swift,
    acl::Acl,
    answer::{Outcome, refuse},
    call::{Call, Leave},
    model::{Account, Container},
};
use base::Context;
use web::Method;

/// What someone may do who may do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Sees and changes access lists and keys.
    pub owner: bool,
    /// Sets quotas, and is held by none.
    pub reseller: bool,
}

/// Where an account's row keeps the domain of its project.
pub const DOMAIN: &str = "x-account-sysmeta-project-domain-id";
const DEFAULT_DOMAIN: &str = "default";

/// What is there when a request comes.
#[derive(Clone, Debug, Default)]
pub struct Info {
    pub account: Option<Account>,
    pub container: Option<Container>,
}

impl Info {
    pub fn read_acl(&self) -> Option<&str> {
        self.container.as_ref()?.meta("x-container-read")
    }

    pub fn write_acl(&self) -> Option<&str> {
        self.container.as_ref()?.meta("x-container-write")
    }
}

impl Swift {
    /// Whether the request may do what it wants; the list is that of the container, if one counts.
    pub fn authorize(&self, call: &Call, info: &Info, list: Option<&str>) -> Outcome<Access> {
        if let Leave::Signed { account, container } = &call.leave {
            let inside = *account == call.place.account
                && container.as_ref().is_none_or(|container| *container == call.place.container);
            return if inside { Ok(Access::default()) } else { Err(refuse(401)) };
        }
        let acl = Acl::parse(list.unwrap_or_default());
        let by_referrer =
            acl.allows_referrer(call.header("referer")) && (call.place.is_object() || acl.has(".rlistings"));
        match &call.who {
            Some(who) => self.known(call, who, info, &acl, by_referrer),
            None if by_referrer => Ok(Access::default()),
            None => Err(refuse(401)),
        }
    }

    fn known(
        &self,
        call: &Call,
        who: &Context,
        info: &Info,
        acl: &Acl,
        by_referrer: bool,
    ) -> Outcome<Access> {
        let has = |roles: &[String]| roles.iter().any(|role| who.has_role(role));
        let allowed = Ok(Access::default());
        if who.has_role(&self.options.reseller_admin_role) {
            return Ok(Access { owner: true, reseller: true });
        }
        if call.reads() && has(&self.options.system_reader_roles) {
            return allowed;
        }
        if call.place.is_account() && call.method == Method::DELETE {
            return Err(refuse(403));
        }
        let is_own = self.is_own(call, who);
        if is_own && has(&self.options.operator_roles) {
            return Ok(Access { owner: true, reseller: false });
        }
        let reads_own = is_own && call.reads() && has(&self.options.project_reader_roles);
        let by_role = is_own && acl.groups.iter().any(|group| who.has_role(group));
        match reads_own || by_role || by_referrer || self.is_named(call, who, info, acl) {
            true => allowed,
            false => Err(refuse(403)),
        }
    }

    /// Whether the account is that of the token's project.
    pub fn is_own(&self, call: &Call, who: &Context) -> bool {
        let project = call.place.account.strip_prefix(&self.options.reseller_prefix);
        !who.project_id.is_empty() && project == Some(&who.project_id)
    }

    /// `project:user`, by ids, names or `*`.
    fn is_named(&self, call: &Call, who: &Context, info: &Info, acl: &Acl) -> bool {
        let by_names = self.options.allow_names_in_acls && self.names_count(call, who, info);
        let named = |id: &str, name: &str, given: &str| {
            given == "*" || given == id || (by_names && !name.is_empty() && given == name)
        };
        acl.groups.iter().filter_map(|group| group.split_once(':')).any(|(project, user)| {
            named(&who.project_id, &who.project_name, project) && named(&who.user_id, &who.user_name, user)
        })
    }

    /// Names are unambiguous where everybody is of the default domain.
    fn names_count(&self, call: &Call, who: &Context, info: &Info) -> bool {
        let is_default = |domain: &str| domain.is_empty() || domain == DEFAULT_DOMAIN;
        if !is_default(&who.user_domain_id) || !is_default(&who.project_domain_id) {
            return false;
        }
        let of_account = || Some(info.account.as_ref()?.metadata.get(DOMAIN).map_or("", String::as_str));
        self.is_own(call, who) || of_account().is_some_and(is_default)
    }
}
