/*
 * The description of a bucket (bucket.h): its memory, which directories exclude each other, and what it means that s3fs, here or
 * in a bridge's container, did not mount it. No state, no locks.
 */
#include "bucket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SHOWN = 300 };

static void wipe(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

void bucket_release(struct bucket *b)
{
	free(b->name);
	free(b->bucket);
	free(b->dir);
	free(b->endpoint);
	free(b->prefix);
	for (char **o = b->options; o && *o; o++)
		free(*o);
	free(b->options);
	wipe(&b->key_id);
	wipe(&b->secret);
	wipe(&b->token);
	*b = (struct bucket){0};
}

static char *copy(const char *s, bool *failed)
{
	char *new = s ? strdup(s) : NULL;
	*failed = *failed || (s && !new);
	return new;
}

int bucket_copy(struct bucket *to, const struct bucket *from)
{
	bool failed = false;
	size_t n = 0;
	*to = (struct bucket){.name = copy(from->name, &failed),
		.bucket = copy(from->bucket, &failed),
		.dir = copy(from->dir, &failed),
		.endpoint = copy(from->endpoint, &failed),
		.prefix = copy(from->prefix, &failed),
		.path_style = from->path_style,
		.read_only = from->read_only};
	while (from->options && from->options[n])
		n++;
	to->options = calloc(n + 1, sizeof *to->options);
	failed = failed || !to->options;
	for (size_t i = 0; i < n && !failed; i++)
		to->options[i] = copy(from->options[i], &failed);
	if (failed)
		bucket_release(to);
	return failed ? -ENOMEM : 0;
}

bool bucket_dirs_meet(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b), n = na < nb ? na : nb;
	const char *longer = na < nb ? b : a;
	return memcmp(a, b, n) == 0 && (na == nb || longer[n] == '/');
}

/* --- what s3fs says --- */

/* A line for people without the time and the place in its source that s3fs puts first. */
static char *plain_line(char *line)
{
	char *message = strstr(line, "): ");
	if (strstr(line, "[CRT]") || strstr(line, "[ERR]"))
		line = message ? message + 3 : line;
	for (char *at = line; *at; at++)
		if ((unsigned char)*at < ' ')
			*at = '?';
	return line;
}

/* 0: these words tell nothing. */
static int words_to_errno(const char *words)
{
	static const struct {
		const char *part;
		int err;
	} known[] = {
		{"not found", ENOENT},
		{"credentials", EACCES},
		{"orbidden", EACCES},
		{"unable to connect", EHOSTUNREACH},
		{"bad request", EINVAL},
		{"unknown option", EINVAL},
		{"argument", EINVAL},
		{"disk space", ENOSPC},
		{"is not empty", ENOTEMPTY},
		{"is not a directory", ENOTDIR},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strstr(words, known[i].part))
			return known[i].err;
	return 0;
}

/* Its own line may be followed by the rest of one that it was written over. */
void bucket_said(char *text, struct buf *out)
{
	char *best = NULL, *save = NULL;
	bool known = false;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (strstr(line, "[INF]") || strstr(line, "[WAN]"))
			continue;
		bool tells = words_to_errno(line) != 0;
		if (tells || !known)
			best = line;
		known = known || tells;
	}
	if (best)
		buf_printf(out, "%.*s", LINE_SHOWN, plain_line(best));
}

int bucket_failed(struct call *c, const struct bucket *b, const char *words, int err)
{
	int number = words_to_errno(words);
	/* What s3fs says is better than what the kernel said: ENOTCONN and the like tell of its end, not of the reason. */
	if (!number)
		number = err == -EACCES || err == -EPERM || err == -ENOENT ? -err : EIO;
	const char *way = number == ENOENT         ? "is there such a bucket?"
					  : number == EACCES       ? "does the key open it?"
					  : number == EHOSTUNREACH ? "is this the endpoint?"
					  : number == ENOTEMPTY || number == ENOTDIR
						  ? "it needs an empty directory, or none."
						  : "see the options of s3fs(1)";
	return call_fault(c, number, "S3FS_MOUNT_ERROR", "%s at %s cannot be mounted; %s s3fs says: %s",
		b->bucket, b->endpoint, way, words);
}
