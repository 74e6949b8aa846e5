"""Answers for what the simulator can be asked: each operation's name, route and permission. Touches nothing."""

from enum import StrEnum
from typing import NamedTuple

CONTACT_LISTS_PATH = "/api/v2/outbound/contactlists"
DIVISION_VIEWS_PATH = CONTACT_LISTS_PATH + "/divisionviews"
DOWNLOADS_PATH = "/api/v2/downloads"
DNC_LISTS_PATH = "/api/v2/outbound/dnclists"
LIMITS_PATH = "/api/v2/organizations/limits/namespaces"
STORAGE_PATH = "/storage"


class Operation(StrEnum):
    """The operations, by the names that faults, the journal and the statistics use."""

    TOKEN = "token"  # noqa: S105 - a name, not a secret
    LIST_CONTACT_LISTS = "list_contact_lists"
    CREATE_CONTACT_LIST = "create_contact_list"
    GET_CONTACT_LIST = "get_contact_list"
    UPDATE_CONTACT_LIST = "update_contact_list"
    DELETE_CONTACT_LIST = "delete_contact_list"
    DELETE_CONTACT_LISTS = "delete_contact_lists"
    UPDATE_CONTACT_LISTS = "update_contact_lists"
    LIST_DIVISION_VIEWS = "list_division_views"
    GET_DIVISION_VIEW = "get_division_view"
    PREVIEW_TIME_ZONES = "preview_time_zones"
    CLEAR_CONTACT_LIST = "clear_contact_list"
    ADD_CONTACTS = "add_contacts"
    DELETE_CONTACTS = "delete_contacts"
    READ_CONTACTS = "read_contacts"
    SEARCH_CONTACTS = "search_contacts"
    GET_CONTACT = "get_contact"
    UPDATE_CONTACT = "update_contact"
    DELETE_CONTACT = "delete_contact"
    BULK_REMOVE = "bulk_remove"
    BULK_UPDATE = "bulk_update"
    LIST_JOBS = "list_jobs"
    GET_JOB = "get_job"
    START_EXPORT = "start_export"
    GET_EXPORT = "get_export"
    GET_DOWNLOAD = "get_download"
    FETCH_FILE = "fetch_file"
    GET_UPLOAD_URL = "get_upload_url"
    UPLOAD_FILE = "upload_file"
    UPLOAD_FORM = "upload_form"
    GET_IMPORT_STATUS = "get_import_status"

    LIST_DNC_LISTS = "list_dnc_lists"
    CREATE_DNC_LIST = "create_dnc_list"
    GET_DNC_LIST = "get_dnc_list"
    UPDATE_DNC_LIST = "update_dnc_list"
    DELETE_DNC_LIST = "delete_dnc_list"
    LIST_DNC_DIVISION_VIEWS = "list_dnc_division_views"
    GET_DNC_DIVISION_VIEW = "get_dnc_division_view"
    ADD_DNC_PHONE_NUMBERS = "add_dnc_phone_numbers"
    PATCH_DNC_PHONE_NUMBERS = "patch_dnc_phone_numbers"
    DELETE_DNC_PHONE_NUMBERS = "delete_dnc_phone_numbers"
    ADD_DNC_EMAIL_ADDRESSES = "add_dnc_email_addresses"
    PATCH_DNC_EMAIL_ADDRESSES = "patch_dnc_email_addresses"
    DELETE_DNC_EMAIL_ADDRESSES = "delete_dnc_email_addresses"
    PATCH_DNC_WHATSAPP_NUMBERS = "patch_dnc_whatsapp_numbers"
    DELETE_DNC_WHATSAPP_NUMBERS = "delete_dnc_whatsapp_numbers"
    PATCH_DNC_CUSTOM_VALUES = "patch_dnc_custom_values"
    DELETE_DNC_CUSTOM_VALUES = "delete_dnc_custom_values"
    START_DNC_EXPORT = "start_dnc_export"
    GET_DNC_EXPORT = "get_dnc_export"
    GET_DNC_UPLOAD_URL = "get_dnc_upload_url"
    GET_DNC_IMPORT_STATUS = "get_dnc_import_status"

    GET_LIMITS = "get_limits"
    GET_DEFAULT_LIMITS = "get_default_limits"


class Route(NamedTuple):
    """Where an operation is reached and which permissions it needs, all of them; none: any token will do."""

    operation: Operation
    method: str
    path: str
    permission: str = ""


_LIST = CONTACT_LISTS_PATH + "/{list_id}"
_CONTACTS = _LIST + "/contacts"
_CONTACT = _CONTACTS + "/{contact_id}"
_JOBS = _CONTACTS + "/bulk/jobs"
_EXPORT = _LIST + "/export"
_EXPORT_PERMISSIONS = "outbound:contact:view outbound:contactList:view"


_DNC_VIEWS = DNC_LISTS_PATH + "/divisionviews"
_DNC_LIST = DNC_LISTS_PATH + "/{list_id}"
_DNC_PHONES = _DNC_LIST + "/phonenumbers"
_DNC_EMAILS = _DNC_LIST + "/emailaddresses"
_DNC_WHATSAPP = _DNC_LIST + "/whatsappnumbers"
_DNC_CUSTOM = _DNC_LIST + "/customexclusioncolumns"
_DNC_EXPORT_PERMISSIONS = "outbound:dnc:view outbound:dncList:view"
_DNC_ADD, _DNC_EDIT, _DNC_DELETE = "outbound:dnc:add", "outbound:dnc:edit", "outbound:dnc:delete"

_DNC_ROUTES = (
    Route(Operation.LIST_DNC_LISTS, "GET", DNC_LISTS_PATH, "outbound:dncList:view"),
    Route(Operation.CREATE_DNC_LIST, "POST", DNC_LISTS_PATH, "outbound:dncList:add"),
    Route(Operation.GET_DNC_UPLOAD_URL, "POST", DNC_LISTS_PATH + "/uploads", "outbound:dncList:upload"),
    Route(Operation.LIST_DNC_DIVISION_VIEWS, "GET", _DNC_VIEWS, "outbound:dncList:search"),
    Route(Operation.GET_DNC_DIVISION_VIEW, "GET", _DNC_VIEWS + "/{list_id}", "outbound:dncList:search"),
    Route(Operation.GET_DNC_LIST, "GET", _DNC_LIST, "outbound:dncList:view"),
    Route(Operation.UPDATE_DNC_LIST, "PUT", _DNC_LIST, "outbound:dncList:edit"),
    Route(Operation.DELETE_DNC_LIST, "DELETE", _DNC_LIST, "outbound:dncList:delete"),
    Route(Operation.ADD_DNC_PHONE_NUMBERS, "POST", _DNC_PHONES, _DNC_ADD),
    Route(Operation.PATCH_DNC_PHONE_NUMBERS, "PATCH", _DNC_PHONES, _DNC_EDIT),
    Route(Operation.DELETE_DNC_PHONE_NUMBERS, "DELETE", _DNC_PHONES, _DNC_DELETE),
    Route(Operation.ADD_DNC_EMAIL_ADDRESSES, "POST", _DNC_EMAILS, _DNC_ADD),
    Route(Operation.PATCH_DNC_EMAIL_ADDRESSES, "PATCH", _DNC_EMAILS, _DNC_EDIT),
    Route(Operation.DELETE_DNC_EMAIL_ADDRESSES, "DELETE", _DNC_EMAILS, _DNC_DELETE),
    Route(Operation.PATCH_DNC_WHATSAPP_NUMBERS, "PATCH", _DNC_WHATSAPP, _DNC_EDIT),
    Route(Operation.DELETE_DNC_WHATSAPP_NUMBERS, "DELETE", _DNC_WHATSAPP, _DNC_DELETE),
    Route(Operation.PATCH_DNC_CUSTOM_VALUES, "PATCH", _DNC_CUSTOM, _DNC_EDIT),
    Route(Operation.DELETE_DNC_CUSTOM_VALUES, "DELETE", _DNC_CUSTOM, _DNC_DELETE),
    Route(Operation.START_DNC_EXPORT, "POST", _DNC_LIST + "/export", _DNC_EXPORT_PERMISSIONS),
    Route(Operation.GET_DNC_EXPORT, "GET", _DNC_LIST + "/export", _DNC_EXPORT_PERMISSIONS),
    Route(Operation.GET_DNC_IMPORT_STATUS, "GET", _DNC_LIST + "/importstatus", "outbound:dncList:view"),
)
_LIMITS_ROUTES = (
    Route(Operation.GET_LIMITS, "GET", LIMITS_PATH + "/{namespace}"),
    Route(Operation.GET_DEFAULT_LIMITS, "GET", LIMITS_PATH + "/{namespace}/defaults"),
)

API_ROUTES = (
    *_DNC_ROUTES,
    *_LIMITS_ROUTES,
    Route(Operation.LIST_CONTACT_LISTS, "GET", CONTACT_LISTS_PATH, "outbound:contactList:view"),
    Route(Operation.CREATE_CONTACT_LIST, "POST", CONTACT_LISTS_PATH, "outbound:contactList:add"),
    Route(Operation.DELETE_CONTACT_LISTS, "DELETE", CONTACT_LISTS_PATH, "outbound:contactList:delete"),
    Route(Operation.UPDATE_CONTACT_LISTS, "POST", CONTACT_LISTS_PATH + "/bulk/update", "outbound:contactList:edit"),
    Route(Operation.GET_UPLOAD_URL, "POST", CONTACT_LISTS_PATH + "/uploads", "outbound:contactList:upload"),
    Route(Operation.LIST_DIVISION_VIEWS, "GET", DIVISION_VIEWS_PATH, "outbound:contactList:search"),
    Route(Operation.GET_DIVISION_VIEW, "GET", DIVISION_VIEWS_PATH + "/{list_id}", "outbound:contactList:search"),
    Route(Operation.GET_CONTACT_LIST, "GET", _LIST, "outbound:contactList:view"),
    Route(Operation.UPDATE_CONTACT_LIST, "PUT", _LIST, "outbound:contactList:edit"),
    Route(Operation.DELETE_CONTACT_LIST, "DELETE", _LIST, "outbound:contactList:delete"),
    Route(Operation.PREVIEW_TIME_ZONES, "GET", _LIST + "/timezonemappingpreview", "outbound:contactList:view"),
    Route(Operation.CLEAR_CONTACT_LIST, "POST", _LIST + "/clear", "outbound:contact:delete"),
    Route(Operation.GET_IMPORT_STATUS, "GET", _LIST + "/importstatus", "outbound:contactList:view"),
    Route(Operation.START_EXPORT, "POST", _EXPORT, _EXPORT_PERMISSIONS),
    Route(Operation.GET_EXPORT, "GET", _EXPORT, _EXPORT_PERMISSIONS),
    Route(Operation.GET_DOWNLOAD, "GET", DOWNLOADS_PATH + "/{download_id}"),
    Route(Operation.ADD_CONTACTS, "POST", _CONTACTS, "outbound:contact:add"),
    Route(Operation.DELETE_CONTACTS, "DELETE", _CONTACTS, "outbound:contact:delete"),
    Route(Operation.READ_CONTACTS, "POST", _CONTACTS + "/bulk", "outbound:contact:view"),
    Route(Operation.SEARCH_CONTACTS, "POST", _CONTACTS + "/search", "outbound:contact:view"),
    Route(Operation.BULK_REMOVE, "POST", _CONTACTS + "/bulk/remove", "outbound:contact:delete"),
    Route(Operation.BULK_UPDATE, "POST", _CONTACTS + "/bulk/update", "outbound:contact:edit"),
    Route(Operation.LIST_JOBS, "GET", _JOBS, "outbound:contactList:view"),
    Route(Operation.GET_JOB, "GET", _JOBS + "/{job_id}", "outbound:contactList:view"),
    Route(Operation.GET_CONTACT, "GET", _CONTACT, "outbound:contact:view"),
    Route(Operation.UPDATE_CONTACT, "PUT", _CONTACT, "outbound:contact:edit"),
    Route(Operation.DELETE_CONTACT, "DELETE", _CONTACT, "outbound:contact:delete"),
)

# What carries files streams: it goes neither through a call's body nor through an answer's.
FETCH_FILE = Route(Operation.FETCH_FILE, "GET", STORAGE_PATH + "/exports/{download_id}")
UPLOAD_FILE = Route(Operation.UPLOAD_FILE, "PUT", STORAGE_PATH + "/uploads/{upload_key}")
UPLOAD_FORM = Route(Operation.UPLOAD_FORM, "POST", "/uploads/v2/contactlist")
