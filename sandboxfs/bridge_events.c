/*
 * The events of a bridge's exec: see bridge_events.h. Owns nothing.
 */
#include "bridge_events.h"

#include <errno.h>
#include <json-c/json.h>
#include <nettle/base64.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "json_read.h"
#include "shown.h"

static int take_output(struct bridge_answer *a, const char *data)
{
	struct base64_decode_ctx ctx;
	size_t n = strlen(data), done = BASE64_DECODE_LENGTH(n);
	AUTO_FREE uint8_t *bytes = malloc(done + 1);
	if (!bytes)
		return -ENOMEM;
	base64_decode_init(&ctx);
	if (!base64_decode_update(&ctx, &done, bytes, n, data) || !base64_decode_final(&ctx))
		return -EPROTO;
	buf_add(a->out, bytes, done);
	return buf_error(a->out);
}

static int take_error(struct bridge_answer *a, const char *words)
{
	AUTO_BUF shown = BUF_INIT;
	shown_words(&shown, words, strlen(words), SHOWN_MOST);
	free(a->error);
	a->error = buf_steal(&shown);
	return a->error ? 0 : -ENOMEM;
}

static int take_event(struct bridge_answer *a, const char *kind, const char *data)
{
	if (strcmp(kind, "stdout") == 0)
		return take_output(a, data);
	if (strcmp(kind, "exit") != 0 && strcmp(kind, "error") != 0)
		return 0; /* stderr, and what may come to be */
	struct json_object *o = json_little(data), *value;
	int err = 0;
	/* A member may be there and null, which json-c gives as NULL. */
	if (json_object_object_get_ex(o, "exit_code", &value) &&
		json_object_is_type(value, json_type_int)) {
		a->status = json_object_get_int(value);
		a->ended = true;
	} else if (json_object_object_get_ex(o, "error", &value) &&
			   json_object_is_type(value, json_type_string)) {
		err = take_error(a, json_object_get_string(value));
	}
	json_object_put(o);
	return err;
}

int bridge_events_take(struct bridge_answer *a, char *text)
{
	const char *kind = "";
	for (char *line, *rest = text; (line = strsep(&rest, "\n"));) {
		size_t n = strlen(line);
		if (n && line[n - 1] == '\r')
			line[n - 1] = 0;
		if (strncmp(line, "event: ", 7) == 0)
			kind = line + 7;
		int err = strncmp(line, "data: ", 6) == 0 ? take_event(a, kind, line + 6) : 0;
		if (err)
			return err;
	}
	return 0;
}
