/* links: ctl/words.c contrib/common/buf.c sandboxfs/call.c */
/*
 * Control lines: words, durations, numbers, JSON. What was split and is quoted again splits into the same words.
 */
#include <errno.h>
#include <json-c/json.h>

#include "buf.h"
#include "ctl.h"
#include "fuzz.h"

static void quote_word(struct buf *out, const char *word)
{
	buf_char(out, '\'');
	for (; *word; word++) {
		if (*word == '\'')
			buf_char(out, '\'');
		buf_char(out, *word);
	}
	buf_str(out, "' ");
}

static void split_again(int argc, char **argv)
{
	struct buf line = BUF_INIT;
	char **again;
	int count;
	for (int i = 0; i < argc; i++)
		quote_word(&line, argv[i]);
	MUST(buf_error(&line) == 0);
	MUST(ctl_split(NULL, line.data ? line.data : "", line.size, &count, &again) == 0);
	MUST(count == argc);
	for (int i = 0; i < argc; i++)
		MUST(strcmp(argv[i], again[i]) == 0);
	free(again);
	buf_release(&line);
}

static void try_json(struct call *c, const char *text, size_t n)
{
	static const char *const keys[] = {"command", "cwd", NULL};
	struct json_object *o = NULL;
	(void)ctl_is_json(text, n);
	int err = ctl_parse_json(c, text, n, &o);
	if (err)
		return;
	MUST(ctl_is_json(text, n));
	(void)ctl_check_keys(c, o, keys);
	json_object_put(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct call c;
	char *line = fuzz_exact(data, size), *text = fuzz_text(data, size);
	char **argv = NULL;
	int argc;
	int64_t number;
	call_init(&c, 0);
	int err = ctl_split(&c, line, size, &argc, &argv);
	MUST(err == 0 || err == -EINVAL);
	/* a NUL cannot stand in a word of C */
	if (!err && !memchr(line, 0, size)) {
		MUST(argv[argc] == NULL);
		split_again(argc, argv);
	}
	if (!err)
		free(argv);
	if (ctl_parse_duration(text, &number) == 0)
		MUST(number >= 0);
	if (ctl_parse_number(text, -5, 70000, &number) == 0)
		MUST(number >= -5 && number <= 70000);
	try_json(&c, text, size);
	call_destroy(&c);
	free(text);
	free(line);
	return 0;
}
