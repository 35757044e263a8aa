/*
 * Reading JSON that somebody else has written. json-c makes hundreds of bytes of memory of two of text, so what would take more than
 * may be is refused by its look, before any of it is made.
 *
 * Pure functions. Offers json_read, and json_weight for who has a tokener of its own.
 */
#ifndef SBX_JSON_READ_H
#define SBX_JSON_READ_H

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	/* What json-c 0.16 takes at most: an empty object with its table, an empty list, one value more in either with its share of the growth. */
	JSON_OBJECT_WEIGHT = 900,
	JSON_LIST_WEIGHT = 320,
	JSON_VALUE_WEIGHT = 128,
	/* The most for an answer; for one of which little is wanted. */
	JSON_MOST = 64 << 20,
	JSON_LITTLE = 1 << 20,
	JSON_DEPTH = 32
};

/*
 * The bytes that reading it would take, the text of strings and numbers not counted. It looks on only until that is more than most.
 * SIZE_MAX: json-c would read it, but it is no JSON: comments, and strings in '', where it could not be told what is text.
 */
static inline size_t json_weight(const char *p, size_t n, size_t most)
{
	bool quoted = false;
	size_t weight = 0;
	for (const char *end = p + n; p < end && weight <= most; p++) {
		if (quoted) {
			if (*p == '\\' && p + 1 < end)
				p++;
			else
				quoted = *p != '"';
			continue;
		}
		switch (*p) {
		case '"':
			quoted = true;
			break;
		case '{':
			weight += JSON_OBJECT_WEIGHT;
			break;
		case '[':
			weight += JSON_LIST_WEIGHT;
			break;
		case ',':
		case ':':
			weight += JSON_VALUE_WEIGHT;
			break;
		case '\'':
		case '/':
			return SIZE_MAX;
		}
	}
	return weight;
}

/*
 * The object or list that p begins with, into *out (new): 0, -EPROTO: it is no JSON or too deep, -EFBIG: it would take more
 * memory than most, -ENOMEM. What follows it is not looked at.
 */
static inline int json_read(
	const char *p, size_t n, int depth, size_t most, struct json_object **out)
{
	*out = NULL;
	size_t weight = json_weight(p, n, most);
	if (n > INT_MAX || weight > most)
		return weight == SIZE_MAX ? -EPROTO : -EFBIG;
	struct json_tokener *t = json_tokener_new_ex(depth);
	if (!t)
		return -ENOMEM;
	*out = json_tokener_parse_ex(t, p, (int)n);
	bool read = json_tokener_get_error(t) == json_tokener_success;
	json_tokener_free(t);
	return read ? 0 : -EPROTO;
}

/* Of a short text, a few words of an answer. NULL: none, whyever. */
static inline struct json_object *json_little(const char *text)
{
	struct json_object *o;
	(void)json_read(text, strlen(text), JSON_DEPTH, JSON_LITTLE, &o);
	return o;
}

#endif
