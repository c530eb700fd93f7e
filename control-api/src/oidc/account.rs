//! Who somebody is who signed in: the user that the provider's subject was before, the user who was invited by a checked
//! address, or a new one as far as the groups say. An address alone never makes two subjects one.
//! Knows neither tokens nor sessions.

use gatehouse_contract::{Reason, Role, Roles, TenantStatus, UserId};
use gatehouse_service::Reply;
use gatehouse_store::{
    TenantTx,
    issuers::{Issuer, RolesSource},
    members::Member,
};
use tracing::{info, warn};

use super::exchange::Said;
use crate::{random, routes::refused};

/// The user, with the roles that hold from now on.
///
/// # Errors
/// 403 where the tenant or the user may not act, or where nothing lets the subject in.
pub async fn settle(tx: &mut TenantTx<'_>, issuer: &Issuer, said: &Said) -> Result<UserId, Reply> {
    let tenant = tx.record().await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if tenant.status != TenantStatus::Active {
        return Err(Reason::TenantInactive.into());
    }
    let name = &issuer.settings.issuer;
    let mut within = tx.within();
    let roles = roles(issuer, &said.groups);
    let mut known = within.identity(name, &said.subject).await.map_err(refused)?;
    if known.is_none() {
        // A person may sign in for the first time in two tabs at once.
        known = within.identity_in_turn(name, &said.subject).await.map_err(refused)?;
    }
    if let Some(user) = known {
        let record = within.member(Member::User(user)).await.map_err(refused)?;
        if record.ok_or(Reason::NotFound)?.suspended {
            return Err(Reason::PrincipalInactive.into());
        }
        if issuer.settings.roles_source == RolesSource::Token
            && !within.set_roles(user, roles).await.map_err(refused)?
        {
            warn!(user.id = %user, "the last admin stays one, whatever the groups say");
        }
        return Ok(user);
    }
    // The invitation says the role; a token source says it at each sign-in.
    if said.email_verified
        && let Some(email) = &said.email
        && let Some(user) = within.invited(email).await.map_err(refused)?
    {
        let record = within.member(Member::User(user)).await.map_err(refused)?;
        if record.ok_or(Reason::NotFound)?.suspended {
            return Err(Reason::PrincipalInactive.into());
        }
        within.link_identity(user, name, &said.subject).await.map_err(refused)?;
        info!(user.id = %user, "an invitation was taken up");
        return Ok(user);
    }
    if roles == Roles::NONE {
        return Err(Reply::new(Reason::PermissionDenied)
            .detail("none of your groups gives access here; ask the tenant's admin"));
    }
    let email = said.email.as_deref().filter(|email| is_address(email));
    let email = email.ok_or_else(|| {
        Reply::new(Reason::PermissionDenied).detail(
            "the identity provider does not say your e-mail address; ask the tenant's admin",
        )
    })?;
    let user = UserId::new(random::id());
    within.create_federated_user(user, email, roles).await.map_err(refused)?;
    within.link_identity(user, name, &said.subject).await.map_err(refused)?;
    info!(user.id = %user, "a new user signed in");
    Ok(user)
}

/// What the groups are here, never above what the issuer may grant.
fn roles(issuer: &Issuer, groups: &[String]) -> Roles {
    let map = &issuer.settings.role_map;
    let roles: Roles = groups.iter().filter_map(|group| map.get(group)).copied().collect::<Roles>();
    let highest: Role = issuer.settings.max_role;
    roles.up_to(highest)
}

/// As far as the table wants it.
fn is_address(text: &str) -> bool {
    (3..=254).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic())
        && text.contains('@')
}
