/* links: ctl/log_event.c contrib/common/buf.c sandboxfs/call.c */
/*
 * Log events: whatever a process prints, each line is one JSON object and all bytes of a stream are in them, in order.
 * The input is pieces: a byte of stream and length, then so many bytes.
 */
#include <json-c/json.h>

#include "buf.h"
#include "fuzz.h"
#include "log_event.h"

static void take_base64(const char *s, struct buf *out)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t bits = 0;
	unsigned have = 0;
	for (; *s && *s != '='; s++) {
		const char *at = strchr(letters, *s);
		MUST(at);
		bits = bits << 6 | (uint32_t)(at - letters);
		have += 6;
		if (have >= 8) {
			have -= 8;
			buf_char(out, (char)(bits >> have));
		}
	}
}

/* Every line into the bytes of its stream. */
static void read_lines(struct buf *lines, struct buf streams[2])
{
	char *end;
	buf_char(lines, 0);
	MUST(buf_error(lines) == 0);
	for (char *line = lines->data; *line; line = end + 1) {
		end = strchr(line, '\n');
		MUST(end);
		*end = 0;
		struct json_object *o = json_tokener_parse(line), *v, *type;
		MUST(o && json_object_is_type(o, json_type_object));
		MUST(json_object_object_get_ex(o, "type", &type));
		bool err = strcmp(json_object_get_string(type), "stderr") == 0;
		if (err || strcmp(json_object_get_string(type), "stdout") == 0) {
			if (json_object_object_get_ex(o, "dataBase64", &v)) {
				take_base64(json_object_get_string(v), &streams[err]);
			} else {
				MUST(json_object_object_get_ex(o, "data", &v));
				buf_add(&streams[err], json_object_get_string(v),
					(size_t)json_object_get_string_len(v));
			}
		}
		json_object_put(o);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct log_event_state s;
	struct buf lines = BUF_INIT, want[2] = {BUF_INIT, BUF_INIT}, got[2] = {BUF_INIT, BUF_INIT};
	struct reader in;
	struct feed_item end = {.kind = FEED_EXIT};
	log_event_init(&s, size & 1 ? "id" : NULL);
	reader_init(&in, data, size);
	while (in.left) {
		uint8_t head = reader_u8(&in);
		size_t n = head >> 1;
		n = n < in.left ? n : in.left;
		char *piece = fuzz_exact(reader_take(&in, n), n);
		struct feed_item item = {
			.kind = FEED_DATA, .stream = 1 + (head & 1), .time = head, .p = piece, .n = n};
		buf_add(&want[head & 1], piece, n);
		log_event_put(&s, &item, &lines);
		free(piece);
	}
	log_event_put(&s, &end, &lines);
	log_event_release(&s);
	read_lines(&lines, got);
	for (int i = 0; i < 2; i++) {
		MUST(want[i].size == got[i].size);
		MUST(!want[i].size || memcmp(want[i].data, got[i].data, want[i].size) == 0);
		buf_release(&want[i]);
		buf_release(&got[i]);
	}
	buf_release(&lines);
	return 0;
}
