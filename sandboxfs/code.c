/*
 * What is kept of a run of code: see code.h. Events become bytes of spools here.
 */
#include "code.h"

#include <errno.h>
#include <json-c/json.h>
#include <nettle/base64.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "code_impl.h"
#include "run.h"

static const struct {
	const char *form, *ext;
	bool coded;
} forms[] = {
	{"text", "txt", false},
	{"html", "html", false},
	{"png", "png", true},
	{"jpeg", "jpg", true},
	{"svg", "svg", false},
	{"json", "json", false},
	{"latex", "tex", false},
	{"markdown", "md", false},
	{"javascript", "js", false},
};
enum { FORMS = sizeof forms / sizeof *forms };

/* --- life --- */

int code_run_new(struct sandbox *sb, struct code_run **out)
{
	AUTO_FREE char *dir = run_spool_dir();
	struct code_run *r = dir ? calloc(1, sizeof *r) : NULL;
	if (!r)
		return -ENOMEM;
	atomic_init(&r->references, 1);
	pthread_mutex_init(&r->lock, NULL);
	r->sb = sb;
	r->kept_max = sandbox_options(sb)->output_max;
	clock_gettime(CLOCK_REALTIME, &r->begun);
	int err = spool_new(dir, r->kept_max, &r->printed);
	if (!err)
		err = spool_new(dir, r->kept_max, &r->said);
	if (!err)
		err = spool_new(dir, r->kept_max, &r->kept);
	if (err)
		code_run_put(r);
	else
		*out = r;
	return err;
}

struct code_run *code_run_get(struct code_run *r)
{
	atomic_fetch_add(&r->references, 1);
	return r;
}

void code_run_put(struct code_run *r)
{
	if (!r || atomic_fetch_sub(&r->references, 1) != 1)
		return;
	if (r->printed)
		spool_put(r->printed);
	if (r->said)
		spool_put(r->said);
	if (r->kept)
		spool_put(r->kept);
	for (size_t i = 0; i < r->files_count; i++)
		free(r->files[i]);
	free(r->files);
	free(r->displays);
	free(r->name);
	free(r->value);
	free(r->traceback);
	fault_clear(&r->fault);
	buf_release(&r->stream.line);
	buf_release(&r->stream.come);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

struct spool *code_run_printed(struct code_run *r)
{
	return r->printed;
}

struct spool *code_run_said(struct code_run *r)
{
	return r->said;
}

struct timespec code_run_time(struct code_run *r)
{
	AUTO_UNLOCK(&r->lock);
	return r->ended.tv_sec ? r->ended : r->begun;
}

/* --- events --- */

static const char *text_of(struct json_object *o, const char *key, size_t *n)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	*n = (size_t)json_object_get_string_len(v);
	return json_object_get_string(v);
}

static int take_output(struct code_run *r, struct json_object *o, enum spool_view stream)
{
	size_t n = 0;
	const char *p = text_of(o, "text", &n);
	if (!p)
		return -EPROTO;
	int err = spool_append(r->printed, stream, p, n);
	return err ? err : spool_append(r->said, stream, p, n);
}

static int from_base64(const char *p, size_t n, struct buf *out)
{
	struct base64_decode_ctx ctx;
	size_t done = BASE64_DECODE_LENGTH(n);
	uint8_t *to = (uint8_t *)buf_reserve(out, done + 1);
	if (!to)
		return -ENOMEM;
	base64_decode_init(&ctx);
	if (!base64_decode_update(&ctx, &done, to, n, p) || !base64_decode_final(&ctx))
		return -EPROTO;
	out->size += done;
	return 0;
}

static int keep_file(struct code_run *r, unsigned number, size_t form, const char *p, size_t n)
{
	uint64_t off = spool_size(r->kept, SPOOL_BOTH);
	int err = n ? spool_append(r->kept, SPOOL_STDOUT, p, n) : 0;
	struct code_file *f = err ? NULL : calloc(1, sizeof *f);
	if (!f)
		return err ? err : -ENOMEM;
	*f = (struct code_file){.run = r,
		.number = number,
		.form = forms[form].form,
		.ext = forms[form].ext,
		.off = off,
		.size = n};
	AUTO_UNLOCK(&r->lock);
	struct code_file **more = realloc(r->files, (r->files_count + 1) * sizeof(struct code_file *));
	if (!more) {
		free(f);
		return -ENOMEM;
	}
	r->files = more;
	r->files[r->files_count++] = f;
	return 0;
}

/* The display's turn: its files follow. */
static int display_begin(struct code_run *r, unsigned *number)
{
	AUTO_UNLOCK(&r->lock);
	size_t n = r->displays_count;
	struct code_display *more = realloc(r->displays, (n + 1) * sizeof *more);
	if (!more)
		return -ENOMEM;
	r->displays = more;
	r->displays[n] = (struct code_display){
		.at = spool_size(r->printed, SPOOL_BOTH), .first = r->files_count, .count = 0};
	r->displays_count = n + 1;
	*number = (unsigned)n;
	return 0;
}

static int say_left_out(struct code_run *r, unsigned number, const char *form)
{
	AUTO_BUF note = BUF_INIT;
	buf_printf(
		&note, "[the %s of display %u is left out: -o output-max= keeps more]\n", form, number);
	return buf_error(&note) ? -ENOMEM : spool_append(r->said, SPOOL_STDERR, note.data, note.size);
}

static int take_form(struct code_run *r, unsigned number, size_t form, struct json_object *v)
{
	AUTO_BUF raw = BUF_INIT;
	bool is_text = json_object_is_type(v, json_type_string);
	bool is_json = strcmp(forms[form].form, "json") == 0;
	const char *p;
	size_t n = 0;
	if (is_json) {
		p = json_object_to_json_string_length(
			v, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n);
	} else {
		p = is_text ? json_object_get_string(v) : NULL;
		n = is_text ? (size_t)json_object_get_string_len(v) : 0;
	}
	if (!p)
		return is_json ? -ENOMEM : 0;
	if (forms[form].coded) {
		int err = from_base64(p, n, &raw);
		if (err == -ENOMEM)
			return err;
		if (err)
			return 0; /* no picture: the display's other forms are kept */
		p = raw.data ? raw.data : "";
		n = raw.size;
	}
	if (n > r->kept_max - spool_size(r->kept, SPOOL_BOTH))
		return say_left_out(r, number, forms[form].form);
	int err = keep_file(r, number, form, p, n);
	if (err)
		return err;
	AUTO_UNLOCK(&r->lock);
	r->displays[number].count++;
	return 0;
}

static int take_result(struct code_run *r, struct json_object *o)
{
	unsigned number;
	size_t n = 0;
	int err = display_begin(r, &number);
	for (size_t i = 0; !err && i < FORMS; i++) {
		struct json_object *v;
		if (json_object_object_get_ex(o, forms[i].form, &v))
			err = take_form(r, number, i, v);
	}
	const char *p = text_of(o, "text", &n);
	if (!err && p && n)
		err = spool_append(r->said, SPOOL_STDOUT, p, n);
	if (!err && p && n && p[n - 1] != '\n')
		err = spool_append(r->said, SPOOL_STDOUT, "\n", 1);
	return err;
}

/* Without the colours that some interpreters put in. */
static void put_plain(struct buf *out, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == 0x1b && i + 1 < n && p[i + 1] == '[') {
			for (i += 2; i < n && (p[i] < 0x40 || p[i] > 0x7e); i++)
				;
		} else if (p[i]) {
			buf_char(out, p[i]);
		}
	}
}

static void put_traceback(struct buf *out, struct json_object *lines)
{
	size_t count =
		lines && json_object_is_type(lines, json_type_array) ? json_object_array_length(lines) : 0;
	for (size_t i = 0; i < count; i++) {
		struct json_object *v = json_object_array_get_idx(lines, i);
		if (!json_object_is_type(v, json_type_string))
			continue;
		put_plain(out, json_object_get_string(v), (size_t)json_object_get_string_len(v));
		if (out->size && out->data[out->size - 1] != '\n')
			buf_char(out, '\n');
	}
}

static int take_error(struct code_run *r, struct json_object *o)
{
	AUTO_BUF name = BUF_INIT;
	AUTO_BUF value = BUF_INIT;
	AUTO_BUF lines = BUF_INIT;
	AUTO_BUF shown = BUF_INIT;
	struct json_object *trace = NULL;
	size_t n = 0;
	const char *p = text_of(o, "ename", &n);
	put_plain(&name, p ? p : "Error", p ? n : 5);
	p = text_of(o, "evalue", &n);
	put_plain(&value, p ? p : "", p ? n : 0);
	buf_add(&value, "", 0);
	json_object_object_get_ex(o, "traceback", &trace);
	put_traceback(&lines, trace);
	buf_add(&lines, "", 0);
	if (buf_error(&name) || buf_error(&value) || buf_error(&lines))
		return -ENOMEM;
	/* A traceback ends with name and message. */
	if (lines.size)
		buf_add(&shown, lines.data, lines.size);
	else
		buf_printf(
			&shown, "%s: %s\n", name.data ? name.data : "Error", value.data ? value.data : "");
	int err = buf_error(&shown);
	if (!err)
		err = spool_append(r->said, SPOOL_STDERR, shown.data, shown.size);
	AUTO_UNLOCK(&r->lock);
	if (r->has_error)
		return -EPROTO;
	r->has_error = true;
	r->name = buf_steal(&name);
	r->value = value.data ? buf_steal(&value) : strdup("");
	r->traceback = lines.data ? buf_steal(&lines) : strdup("");
	return err ? err : !r->value || !r->traceback ? -ENOMEM : 0;
}

static void take_count(struct code_run *r, struct json_object *o)
{
	struct json_object *v;
	AUTO_UNLOCK(&r->lock);
	if (json_object_object_get_ex(o, "execution_count", &v))
		r->count = json_object_get_int64(v);
}

int code_run_take(struct code_run *r, struct json_object *event)
{
	size_t n = 0;
	const char *type =
		json_object_is_type(event, json_type_object) ? text_of(event, "type", &n) : NULL;
	if (!type)
		return -EPROTO;
	if (strcmp(type, "stdout") == 0)
		return take_output(r, event, SPOOL_STDOUT);
	if (strcmp(type, "stderr") == 0)
		return take_output(r, event, SPOOL_STDERR);
	if (strcmp(type, "result") == 0)
		return take_result(r, event);
	bool failed = strcmp(type, "error") == 0;
	if (!failed && strcmp(type, "execution_complete") != 0)
		return 0; /* something new */
	take_count(r, event);
	int err = failed ? take_error(r, event) : 0;
	return err ? err : 1;
}

/* --- the end --- */

void code_run_settle(struct code_run *r, int err, const struct fault *f)
{
	{
		AUTO_UNLOCK(&r->lock);
		clock_gettime(CLOCK_REALTIME, &r->ended);
		r->settled = true;
		r->err = err;
		if (err && f)
			fault_copy(&r->fault, f);
	}
	spool_end(r->printed);
	spool_end(r->kept);
	spool_end(r->said); /* the last: its watchers look at all */
}

bool code_run_settled(struct code_run *r)
{
	AUTO_UNLOCK(&r->lock);
	return r->settled;
}

static void on_said(void *call)
{
	call_wake(call);
}

static bool is_settled(void *run)
{
	return code_run_settled(run);
}

int code_run_wait(struct code_run *r, struct call *c)
{
	struct spool_watch *w = spool_watch(r->said, on_said, c);
	int err = w ? call_wait(c, is_settled, r, -1) : -ENOMEM;
	if (w)
		spool_unwatch(r->said, w);
	if (err)
		return err;
	AUTO_UNLOCK(&r->lock);
	if (r->err && !c->fault.err && r->fault.err)
		fault_copy(&c->fault, &r->fault);
	return r->err;
}

/* --- displays --- */

size_t code_run_files(struct code_run *r)
{
	AUTO_UNLOCK(&r->lock);
	return r->files_count;
}

const struct code_file *code_run_file(struct code_run *r, size_t i)
{
	AUTO_UNLOCK(&r->lock);
	return i < r->files_count ? r->files[i] : NULL;
}

ssize_t code_file_read(const struct code_file *f, void *p, size_t n, uint64_t off)
{
	uint64_t next;
	if (off >= f->size)
		return 0;
	if (n > f->size - off)
		n = (size_t)(f->size - off);
	return spool_pread(f->run->kept, SPOOL_BOTH, p, n, f->off + off, NULL, &next);
}
