//! Default policy rules, named and worded as upstream's.

use policy::Rule;

const PROJECT: &[&str] = &["project"];
const ADMIN: &str = "rule:admin_or_service_api";

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::new("admin_api", "role:admin", "Default rule for most placement APIs.").scoped(PROJECT),
    Rule::new("service_api", "role:service", "Default rule for service-to-service placement APIs.").scoped(PROJECT),
    Rule::new("admin_or_service_api", "role:admin or role:service", "Default rule for most placement APIs.").scoped(PROJECT),
    Rule::new("project_reader_api", "role:reader and project_id:%(project_id)s", "Default rule for Project level reader APIs.").scoped(PROJECT),
    Rule::new("admin_or_project_reader_or_service_api", "rule:admin_or_service_api or rule:project_reader_api", "Default rule for project level reader APIs.").scoped(PROJECT),
    Rule::new("placement:resource_providers:list", ADMIN, "List resource providers.").scoped(PROJECT),
    Rule::new("placement:resource_providers:create", ADMIN, "Create a resource provider.").scoped(PROJECT),
    Rule::new("placement:resource_providers:show", ADMIN, "Show resource provider.").scoped(PROJECT),
    Rule::new("placement:resource_providers:update", ADMIN, "Update a resource provider.").scoped(PROJECT),
    Rule::new("placement:resource_providers:delete", ADMIN, "Delete a resource provider.").scoped(PROJECT),
    Rule::new("placement:resource_classes:list", ADMIN, "List resource classes.").scoped(PROJECT),
    Rule::new("placement:resource_classes:create", ADMIN, "Create resource class.").scoped(PROJECT),
    Rule::new("placement:resource_classes:show", ADMIN, "Show resource class.").scoped(PROJECT),
    Rule::new("placement:resource_classes:update", ADMIN, "Update resource class.").scoped(PROJECT),
    Rule::new("placement:resource_classes:delete", ADMIN, "Delete resource class.").scoped(PROJECT),
    Rule::new("placement:resource_providers:inventories:list", ADMIN, "List resource provider inventories.").scoped(PROJECT),
    Rule::new("placement:resource_providers:inventories:create", ADMIN, "Create one resource provider inventory.").scoped(PROJECT),
    Rule::new("placement:resource_providers:inventories:show", ADMIN, "Show resource provider inventory.").scoped(PROJECT),
    Rule::new("placement:resource_providers:inventories:update", ADMIN, "Update resource provider inventory.").scoped(PROJECT),
    Rule::new("placement:resource_providers:inventories:delete", ADMIN, "Delete resource provider inventory.").scoped(PROJECT),
    Rule::new("placement:resource_providers:aggregates:list", ADMIN, "List resource provider aggregates.").scoped(PROJECT),
    Rule::new("placement:resource_providers:aggregates:update", ADMIN, "Update resource provider aggregates.").scoped(PROJECT),
    Rule::new("placement:resource_providers:usages", ADMIN, "List resource provider usages.").scoped(PROJECT),
    Rule::new("placement:usages", "rule:admin_or_project_reader_or_service_api", "List total resource usages for a given project.").scoped(PROJECT),
    Rule::new("placement:traits:list", ADMIN, "List traits.").scoped(PROJECT),
    Rule::new("placement:traits:show", ADMIN, "Show trait.").scoped(PROJECT),
    Rule::new("placement:traits:update", ADMIN, "Update trait.").scoped(PROJECT),
    Rule::new("placement:traits:delete", ADMIN, "Delete trait.").scoped(PROJECT),
    Rule::new("placement:resource_providers:traits:list", ADMIN, "List resource provider traits.").scoped(PROJECT),
    Rule::new("placement:resource_providers:traits:update", ADMIN, "Update resource provider traits.").scoped(PROJECT),
    Rule::new("placement:resource_providers:traits:delete", ADMIN, "Delete resource provider traits.").scoped(PROJECT),
    Rule::new("placement:allocations:manage", ADMIN, "Manage allocations.").scoped(PROJECT),
    Rule::new("placement:allocations:list", ADMIN, "List allocations.").scoped(PROJECT),
    Rule::new("placement:allocations:update", ADMIN, "Update allocations.").scoped(PROJECT),
    Rule::new("placement:allocations:delete", ADMIN, "Delete allocations.").scoped(PROJECT),
    Rule::new("placement:resource_providers:allocations:list", ADMIN, "List resource provider allocations.").scoped(PROJECT),
    Rule::new("placement:allocation_candidates:list", ADMIN, "List allocation candidates.").scoped(PROJECT),
    Rule::new("placement:reshaper:reshape", "rule:service_api", "Reshape Inventory and Allocations.").scoped(PROJECT),
];
