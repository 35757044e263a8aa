/*
 * Words and values of the control files: how a line is split, what a duration, a number and a JSON
 * document look like. Owns nothing; no state, no requests. Each failure fills the fault with a
 * sentence that shows where the text went wrong.
 */
#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"

enum {
	WORDS_SHOWN = 200, /* bytes of a line that a message repeats */
	WORDS_JSON_DEPTH = 32
};

static bool is_blank(char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r';
}

static int shown(size_t n)
{
	return n > WORDS_SHOWN ? WORDS_SHOWN : (int)n;
}

/* Copies the word at *at to *to without its quotes and ends it. False: a quote stays open. */
static bool take_word(const char *line, size_t n, size_t *at, char **to)
{
	bool quoted = false;
	size_t i = *at;
	char *out = *to;
	for (; i < n && (quoted || !is_blank(line[i])); i++) {
		if (line[i] != '\'')
			*out++ = line[i];
		else if (quoted && i + 1 < n && line[i + 1] == '\'')
			*out++ = line[i++];
		else
			quoted = !quoted;
	}
	*out++ = 0;
	*at = i;
	*to = out;
	return !quoted;
}

int ctl_split(struct call *c, const char *line, size_t n, int *argc, char ***argv)
{
	if (memchr(line, 0, n))
		return call_fault(c, EINVAL, NULL, "a line of words holds no NUL byte");
	/* At most every second byte begins a word; words and their ends fit in n + 1 bytes. */
	size_t most = n / 2 + 1;
	if (most >= INT_MAX)
		return call_fault(c, E2BIG, NULL, "the line is too long");
	AUTO_FREE char **words = malloc((most + 1) * sizeof(char *) + n + 2);
	if (!words)
		return -ENOMEM;
	char *to = (char *)(words + most + 1);
	int count = 0;
	for (size_t at = 0; at < n;) {
		if (is_blank(line[at])) {
			at++;
			continue;
		}
		words[count++] = to;
		if (!take_word(line, n, &at, &to))
			return call_fault(c, EINVAL, NULL,
				"a ' is not closed (two of them inside '...' are one): %.*s", shown(n), line);
	}
	words[count] = NULL;
	*argc = count;
	*argv = steal(words);
	return 0;
}

bool ctl_is_editors_name(const char *name)
{
	size_t n = strlen(name);
	return *name == '.' || *name == '#' || (n && name[n - 1] == '~') ||
		   (n > 4 && name[n - 4] == '.' && name[n - 3] == 's' && name[n - 2] == 'w');
}

/* Digits at *s, at most max. False: none, or more than max. */
static bool take_digits(const char **s, int64_t max, int64_t *out)
{
	const char *p = *s;
	int64_t v = 0;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (v > (max - (*p - '0')) / 10)
			return false;
		v = v * 10 + (*p - '0');
	}
	if (p == *s)
		return false;
	*s = p;
	*out = v;
	return true;
}

int ctl_parse_duration(const char *s, int64_t *ms)
{
	static const struct {
		const char *name;
		int64_t ms;
	} unit[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
	int64_t whole, thousandths = 0;

	if (!take_digits(&s, INT64_MAX / 3600000 - 1, &whole))
		return -EINVAL;
	if (*s == '.') {
		s++;
		int64_t worth = 100;
		if (*s < '0' || *s > '9')
			return -EINVAL;
		for (; *s >= '0' && *s <= '9'; s++, worth /= 10)
			thousandths += (*s - '0') * worth;
	}
	for (size_t i = 0; i < sizeof(unit) / sizeof(unit[0]); i++)
		if (strcmp(s, unit[i].name) == 0) {
			*ms = whole * unit[i].ms + thousandths * unit[i].ms / 1000;
			return 0;
		}
	return -EINVAL;
}

int ctl_parse_number(const char *s, int64_t min, int64_t max, int64_t *out)
{
	bool negative = *s == '-';
	int64_t v;
	if (negative)
		s++;
	if (!take_digits(&s, INT64_MAX, &v) || *s)
		return -EINVAL;
	if (negative)
		v = -v;
	if (v < min || v > max)
		return -EINVAL;
	*out = v;
	return 0;
}

static size_t skip_blanks(const char *text, size_t n, size_t at)
{
	while (at < n && is_blank(text[at]))
		at++;
	return at;
}

bool ctl_is_json(const char *text, size_t n)
{
	size_t at = skip_blanks(text, n, 0);
	if (at == n || text[at] != '{')
		return false;
	at = skip_blanks(text, n, at + 1);
	if (at == n)
		return false;
	if (text[at] == '}')
		return true;
	if (text[at++] != '"')
		return false;
	for (; at < n && text[at] != '"'; at++)
		if (text[at] == '\\')
			at++;
	at = skip_blanks(text, n, at + 1);
	return at < n && text[at] == ':';
}

/* json-c takes '…' for the name of a member even when it is strict. Where one begins, or n. */
static size_t find_single_quote(const char *text, size_t n)
{
	bool quoted = false;
	for (size_t at = 0; at < n; at++) {
		if (quoted && text[at] == '\\')
			at++;
		else if (text[at] == '"')
			quoted = !quoted;
		else if (text[at] == '\'' && !quoted)
			return at;
	}
	return n;
}

int ctl_parse_json(struct call *c, const char *text, size_t n, struct json_object **out)
{
	size_t begin = skip_blanks(text, n, 0);
	if (begin == n || text[begin] != '{')
		return call_fault(
			c, EINVAL, NULL, "no JSON object begins at byte %zu; write one whole object", begin);
	if (n > INT_MAX)
		return call_fault(c, EFBIG, NULL, "the JSON is too long");
	struct json_tokener *tok = json_tokener_new_ex(WORDS_JSON_DEPTH);
	if (!tok)
		return -ENOMEM;
	json_tokener_set_flags(
		tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS | JSON_TOKENER_VALIDATE_UTF8);
	struct json_object *o = json_tokener_parse_ex(tok, text, (int)n);
	enum json_tokener_error err = json_tokener_get_error(tok);
	size_t end = json_tokener_get_parse_end(tok);
	json_tokener_free(tok);
	int result = 0;
	if (err == json_tokener_continue)
		result = call_fault(
			c, EINVAL, NULL, "JSON ends at byte %zu; write a command or one whole object", n);
	else if (err != json_tokener_success)
		result = call_fault(
			c, EINVAL, NULL, "JSON is wrong at byte %zu: %s", end, json_tokener_error_desc(err));
	else if ((begin = find_single_quote(text, n)) < n)
		result = call_fault(
			c, EINVAL, NULL, "JSON is wrong at byte %zu: its strings stand in \"\"", begin);
	else if (!json_object_is_type(o, json_type_object))
		result = call_fault(c, EINVAL, NULL, "JSON is no object; write one whole object");
	else if ((end = skip_blanks(text, n, end)) < n)
		result = call_fault(c, EINVAL, NULL,
			"text goes on after the JSON object, at byte %zu; write one whole object", end);
	if (result) {
		json_object_put(o);
		return result;
	}
	*out = o;
	return 0;
}

static bool is_among(const char *key, const char *const *keys)
{
	for (; *keys; keys++)
		if (strcmp(*keys, key) == 0)
			return true;
	return false;
}

static int unknown_key(struct call *c, const char *key, const char *const *keys)
{
	AUTO_BUF known = BUF_INIT;
	for (; *keys; keys++) {
		buf_char(&known, ' ');
		buf_str(&known, *keys);
	}
	return call_fault(c, EINVAL, NULL, "unknown key \"%.*s\"; known are:%s", shown(strlen(key)),
		key, buf_error(&known) || !known.data ? "" : known.data);
}

int ctl_json_copy(struct json_object *from, struct json_object **out)
{
	*out = NULL;
	return !from || json_object_deep_copy(from, out, NULL) == 0 ? 0 : -ENOMEM;
}

int ctl_check_keys(struct call *c, struct json_object *o, const char *const *keys)
{
	json_object_object_foreach(o, key, value)
	{
		(void)value; /* the macro declares it */
		if (!is_among(key, keys))
			return unknown_key(c, key, keys);
	}
	return 0;
}
