//! Default policy rules, named as upstream's.

use policy::Rule;

const MEMBER: &str = "rule:context_is_admin or (role:member and project_id:%(project_id)s)";
const READER: &str = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)";
const SEES: &str = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const DOWNLOADS: &str = "rule:context_is_admin or (role:member and (project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const OF_MEMBERS: &str =
    "rule:context_is_admin or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)";

const SEES_NAMESPACE: &str =
    "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))";
const METADEF_ADMIN: &str = "rule:metadef_admin";

#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::new("context_is_admin", "role:admin", "Defines the rule for the is_admin:True check."),
    Rule::new("service_api", "role:service or role:admin", "Default rule for the service-to-service API."),
    Rule::new("add_image", "rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)", "Create new image"),
    Rule::new("delete_image", MEMBER, "Deletes the image"),
    Rule::new("get_image", SEES, "Get specified image"),
    Rule::new("get_images", READER, "Get all available images"),
    Rule::new("modify_image", MEMBER, "Updates given image"),
    Rule::new("publicize_image", "rule:context_is_admin", "Publicize given image"),
    Rule::new("communitize_image", MEMBER, "Communitize given image"),
    Rule::new("download_image", DOWNLOADS, "Downloads given image"),
    Rule::new("upload_image", MEMBER, "Uploads data to specified image"),
    Rule::new("add_member", MEMBER, "Create image member"),
    Rule::new("delete_member", MEMBER, "Delete image member"),
    Rule::new("get_member", OF_MEMBERS, "Show image member details"),
    Rule::new("get_members", OF_MEMBERS, "List image members"),
    Rule::new("modify_member", "rule:context_is_admin or (role:member and project_id:%(member_id)s)", "Update image member"),
    Rule::new("copy_image", "rule:context_is_admin", "Copy existing image to other stores"),
    Rule::new("add_image_location", "rule:service_api or (role:member and project_id:%(project_id)s and project_id:%(owner)s)", "Set location URI"),
    Rule::new("fetch_image_location", "rule:service_api", "Fetch image location"),
    Rule::new("get_image_location", READER, "Fetch image location"),
    Rule::new("delete_image_location", "rule:context_is_admin", "Deletes the location of given image"),
    Rule::new("stores_info_detail", "rule:context_is_admin or rule:service_api", "Expose store specific information"),
    Rule::new("tasks_api_access", "rule:context_is_admin", "This is a generic blanket policy for protecting all task APIs."),
    Rule::new("cache_image", "rule:context_is_admin", "Queue image for caching"),
    Rule::new("cache_list", "rule:context_is_admin", "List cache status"),
    Rule::new("cache_delete", "rule:context_is_admin", "Delete image(s) from cache and/or queue"),
    Rule::new("cache_clean", "rule:context_is_admin", "Clean the cache"),
    Rule::new("cache_prune", "rule:context_is_admin", "Prune the cache"),
    Rule::new("list_cached_nodes", "rule:context_is_admin", "List the nodes that cached an image"),
    Rule::new("deactivate", MEMBER, "Deactivate image"),
    Rule::new("reactivate", MEMBER, "Reactivate image"),
    Rule::new("metadef_default", "", "Older default of the rules about metadata definitions."),
    Rule::new("metadef_admin", "rule:context_is_admin", "Who may change metadata definitions."),
    Rule::new("get_metadef_namespace", SEES_NAMESPACE, "Get a specific namespace."),
    Rule::new("get_metadef_namespaces", READER, "List namespace."),
    Rule::new("modify_metadef_namespace", METADEF_ADMIN, "Modify an existing namespace."),
    Rule::new("add_metadef_namespace", METADEF_ADMIN, "Create a namespace."),
    Rule::new("delete_metadef_namespace", METADEF_ADMIN, "Delete a namespace."),
    Rule::new("get_metadef_object", SEES_NAMESPACE, "Get a specific object from a namespace."),
    Rule::new("get_metadef_objects", SEES_NAMESPACE, "Get objects from a namespace."),
    Rule::new("modify_metadef_object", METADEF_ADMIN, "Update an object within a namespace."),
    Rule::new("add_metadef_object", METADEF_ADMIN, "Create an object within a namespace."),
    Rule::new("delete_metadef_object", METADEF_ADMIN, "Delete an object within a namespace."),
    Rule::new("list_metadef_resource_types", SEES_NAMESPACE, "List meta definition resource types."),
    Rule::new("get_metadef_resource_type", SEES_NAMESPACE, "Get meta definition resource types associations."),
    Rule::new("add_metadef_resource_type_association", METADEF_ADMIN, "Create meta definition resource types association."),
    Rule::new("remove_metadef_resource_type_association", METADEF_ADMIN, "Delete meta definition resource types association."),
    Rule::new("get_metadef_property", SEES_NAMESPACE, "Get a specific meta definition property."),
    Rule::new("get_metadef_properties", SEES_NAMESPACE, "List meta definition properties."),
    Rule::new("modify_metadef_property", METADEF_ADMIN, "Update meta definition property."),
    Rule::new("add_metadef_property", METADEF_ADMIN, "Create meta definition property."),
    Rule::new("remove_metadef_property", METADEF_ADMIN, "Delete meta definition property."),
    Rule::new("get_metadef_tag", SEES_NAMESPACE, "Get tag definition."),
    Rule::new("get_metadef_tags", SEES_NAMESPACE, "List tag definitions."),
    Rule::new("modify_metadef_tag", METADEF_ADMIN, "Update tag definition."),
    Rule::new("add_metadef_tag", METADEF_ADMIN, "Add tag definition."),
    Rule::new("add_metadef_tags", METADEF_ADMIN, "Create tag definitions."),
    Rule::new("delete_metadef_tag", METADEF_ADMIN, "Delete tag definition."),
    Rule::new("delete_metadef_tags", METADEF_ADMIN, "Delete tag definitions."),
];
