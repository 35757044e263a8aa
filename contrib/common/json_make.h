/*
 * Making JSON objects out of values that may not have been had for lack of memory: a member that is missing or null says something else to
 * who reads it than what was meant. An object or list that could not take a value is torn from then on, so is what a torn one is put into,
 * and no text is made of it: who makes one checks once, at the end.
 *
 * Pure functions. Torn is marked by the object's user data, which nobody else uses.
 */
#ifndef SBX_JSON_MAKE_H
#define SBX_JSON_MAKE_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

static inline void cleanup_json(struct json_object **o)
{
	json_object_put(*o);
}
#define AUTO_JSON __attribute__((cleanup(cleanup_json))) struct json_object

/* Neither missing nor torn. */
static inline bool json_whole(struct json_object *o)
{
	bool holds =
		json_object_is_type(o, json_type_object) || json_object_is_type(o, json_type_array);
	return o && !(holds && json_object_get_userdata(o));
}

/* value was not had, or not taken; it is put. */
static inline bool json_tear(struct json_object *o, struct json_object *value)
{
	json_object_put(value);
	if (o)
		json_object_set_userdata(o, o, NULL);
	return false;
}

/* Takes value into the object o. False: out of memory, and o (NULL: there is none) is torn. key is copied. */
static inline bool json_add(struct json_object *o, const char *key, struct json_object *value)
{
	return (o && json_whole(value) && json_object_object_add(o, key, value) == 0) ||
		   json_tear(o, value);
}

/* The same with what is somebody's already, and stays it; NULL: null. */
static inline bool json_add_as(struct json_object *o, const char *key, struct json_object *value)
{
	if (value)
		return json_add(o, key, json_object_get(value));
	return (o && json_object_object_add(o, key, NULL) == 0) || json_tear(o, NULL);
}

/*
 * A copy in *to, for who may put it while another thread uses the first: json-c counts references without a lock. NULL is copied as NULL.
 * False: out of memory.
 */
static inline bool json_copy(struct json_object *from, struct json_object **to)
{
	*to = NULL;
	return !from || json_object_deep_copy(from, to, NULL) == 0;
}

/* As json_add, at the end of a list. */
static inline bool json_append(struct json_object *list, struct json_object *value)
{
	return (list && json_whole(value) && json_object_array_add(list, value) == 0) ||
		   json_tear(list, value);
}

/* The text of o, borrowed from it until it changes or is put, and its length (NULL: not asked for). NULL: out of memory, then or now. */
static inline const char *json_text_of(struct json_object *o, size_t *n)
{
	return json_whole(o) ? json_object_to_json_string_length(
							   o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, n)
						 : NULL;
}

#endif
