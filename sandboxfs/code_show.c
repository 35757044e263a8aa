/*
 * A run of code as text: its error, and the JSON of all that came of it (code.h). Made when it is asked for, from what is kept.
 */
#include <errno.h>
#include <json-c/json.h>
#include <nettle/base64.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "code_impl.h"

enum { JSON_LOGS_MAX = 16 << 20 /* of what was printed, in the JSON */, READ_SIZE = 64 << 10 };

void code_run_put_error(struct code_run *r, struct buf *out)
{
	AUTO_UNLOCK(&r->lock);
	if (!r->has_error || !r->settled)
		return;
	buf_printf(out, "%s: %s\n", r->name, r->value);
	buf_str(out, r->traceback);
}

static int put_string(struct buf *out, const char *p, size_t n)
{
	struct json_object *o = json_object_new_string_len(p ? p : "", (int)n);
	const char *text = o ? json_object_to_json_string_ext(
							   o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
						 : NULL;
	if (text)
		buf_str(out, text);
	json_object_put(o);
	return text ? 0 : -ENOMEM;
}

/* The content of a form as JSON has it. */
static int put_form(struct buf *out, const struct code_file *f)
{
	AUTO_BUF raw = BUF_INIT;
	char *p = buf_reserve(&raw, (size_t)f->size + 1);
	while (p && raw.size < f->size) {
		ssize_t got = code_file_read(f, p + raw.size, (size_t)f->size - raw.size, raw.size);
		if (got <= 0)
			return got ? (int)got : -EIO;
		raw.size += (size_t)got;
	}
	if (!p)
		return -ENOMEM;
	if (strcmp(f->form, "json") == 0) {
		buf_add(out, p, raw.size);
		return buf_error(out);
	}
	if (strcmp(f->form, "png") != 0 && strcmp(f->form, "jpeg") != 0)
		return put_string(out, p, raw.size);
	size_t n = BASE64_ENCODE_RAW_LENGTH(raw.size);
	buf_char(out, '"');
	char *to = buf_reserve(out, n + 1);
	if (!to)
		return -ENOMEM;
	base64_encode_raw(to, raw.size, (const uint8_t *)p);
	out->size += n;
	buf_char(out, '"');
	return buf_error(out);
}

/* {"type":TYPE,"content":...}, after what is there. */
static void put_output_head(struct buf *out, const char *type)
{
	if (out->data[out->size - 1] != '[')
		buf_char(out, ',');
	buf_printf(out, "{\"type\":\"%s\",\"content\":", type);
}

/* What was printed from *at up to `to`, as outputs. */
static int put_printed(struct code_run *r, struct buf *out, uint64_t *at, uint64_t to)
{
	AUTO_FREE char *p = malloc(READ_SIZE);
	if (!p)
		return -ENOMEM;
	while (*at < to) {
		enum spool_view stream = SPOOL_STDOUT;
		uint64_t lost;
		size_t n = to - *at < READ_SIZE ? (size_t)(to - *at) : READ_SIZE;
		ssize_t got = spool_read_on(r->printed, SPOOL_BOTH, p, n, at, &stream, &lost);
		if (got <= 0)
			return (int)got;
		put_output_head(out, stream == SPOOL_STDERR ? "stderr" : "stdout");
		int err = put_string(out, p, (size_t)got);
		if (err)
			return err;
		buf_char(out, '}');
	}
	return 0;
}

static struct code_display display_at(struct code_run *r, size_t i)
{
	AUTO_UNLOCK(&r->lock);
	return r->displays[i];
}

static int put_outputs(struct code_run *r, struct buf *out, size_t displays)
{
	uint64_t end = spool_size(r->printed, SPOOL_BOTH);
	uint64_t at = end > JSON_LOGS_MAX ? end - JSON_LOGS_MAX : 0;
	int err = 0;
	for (size_t i = 0; !err && i <= displays; i++) {
		struct code_display d = {.at = end};
		if (i < displays)
			d = display_at(r, i);
		err = put_printed(r, out, &at, d.at);
		for (size_t k = 0; !err && k < d.count; k++) {
			const struct code_file *f = code_run_file(r, d.first + k);
			put_output_head(out, f->form);
			err = put_form(out, f);
			buf_char(out, '}');
		}
	}
	return err;
}

static int put_results(struct code_run *r, struct buf *out, size_t displays)
{
	int err = 0;
	for (size_t i = 0; !err && i < displays; i++) {
		struct code_display d = display_at(r, i);
		buf_str(out, i ? ",{" : "{");
		for (size_t k = 0; !err && k < d.count; k++) {
			const struct code_file *f = code_run_file(r, d.first + k);
			buf_printf(out, "%s\"%s\":", k ? "," : "", f->form);
			err = put_form(out, f);
		}
		buf_char(out, '}');
	}
	return err;
}

/* A stream as the SDK has it: a list of one text, or of none. */
static int put_log(struct code_run *r, struct buf *out, enum spool_view view)
{
	AUTO_BUF raw = BUF_INIT;
	uint64_t end = spool_size(r->printed, view), lost;
	uint64_t at = end > JSON_LOGS_MAX ? end - JSON_LOGS_MAX : 0;
	while (at < end) {
		char *p = buf_reserve(&raw, READ_SIZE);
		ssize_t got = p ? spool_read_on(r->printed, view, p, READ_SIZE, &at, NULL, &lost) : -ENOMEM;
		if (got < 0)
			return (int)got;
		if (got == 0)
			break;
		raw.size += (size_t)got;
	}
	buf_char(out, '[');
	int err = raw.size ? put_string(out, raw.data, raw.size) : 0;
	buf_char(out, ']');
	return err;
}

static int put_json_error(struct code_run *r, struct buf *out)
{
	AUTO_UNLOCK(&r->lock);
	if (!r->has_error) {
		buf_str(out, "null");
		return 0;
	}
	buf_str(out, "{\"name\":");
	int err = put_string(out, r->name, strlen(r->name));
	buf_str(out, ",\"message\":");
	if (!err)
		err = put_string(out, r->value, strlen(r->value));
	buf_str(out, ",\"traceback\":[");
	const char *p = r->traceback;
	for (bool first = true; !err && *p; first = false) {
		size_t n = strcspn(p, "\n");
		buf_str(out, first ? "" : ",");
		err = put_string(out, p, n);
		p += n + (p[n] == '\n');
	}
	buf_str(out, "]}");
	return err;
}

int code_run_put_json(struct code_run *r, struct buf *out)
{
	size_t displays;
	int64_t count;
	{
		AUTO_UNLOCK(&r->lock);
		displays = r->displays_count;
		count = r->count;
	}
	buf_str(out, "{\"outputs\":[");
	int err = buf_error(out);
	if (!err)
		err = put_outputs(r, out, displays);
	buf_str(out, "],\"error\":");
	if (!err)
		err = put_json_error(r, out);
	buf_str(out, ",\"results\":[");
	if (!err)
		err = put_results(r, out, displays);
	buf_str(out, "],\"logs\":{\"stdout\":");
	if (!err)
		err = put_log(r, out, SPOOL_STDOUT);
	buf_str(out, ",\"stderr\":");
	if (!err)
		err = put_log(r, out, SPOOL_STDERR);
	buf_printf(out, "},\"executionCount\":%lld}\n", (long long)count);
	return err ? err : buf_error(out);
}
