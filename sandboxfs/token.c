/*
 * The token: see token.h.
 */
#include "token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "buf.h"
#include "cleanup.h"
#include "log.h"

/* One word, as it goes into a header? */
static bool is_token(const char *s)
{
	const char *p = s;
	while (*p > ' ' && *p <= '~')
		p++;
	return p > s && !*p;
}

/* The first line of a file. -ENOENT without a fault if it may be missing and is. */
static int from_file(struct call *c, const char *path, bool may_miss, char **out)
{
	char *line = NULL;
	size_t size = 0;
	errno = 0; /* the end of an empty file leaves it */
	FILE *f = fopen(path, "re");
	struct stat st;
	/* Not refused: a container's secrets are often mounted so, for its one user. */
	if (f && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_mode & 077)
		log_error("the token's file %s is open to others than its owner (mode %04o)", path,
			(unsigned)st.st_mode & 07777);
	ssize_t n = f ? getline(&line, &size, f) : -1;
	int err = n < 0 ? errno : 0;
	if (f)
		fclose(f);
	if (err == ENOENT && may_miss) {
		free(line);
		return -ENOENT;
	}
	while (n > 0 && strchr(" \t\r\n", line[n - 1]))
		line[--n] = 0;
	if (!err && n > 0 && is_token(line)) {
		*out = line;
		return 0;
	}
	if (line)
		explicit_bzero(line, size);
	free(line);
	if (err)
		return call_fault(c, err, NULL, "the token's file %s: %s", path, strerror(err));
	return call_fault(
		c, EINVAL, NULL, "the token's file %s: its first line is no token, one word", path);
}

static int from_environment(struct call *c, char **out)
{
	const char *value = getenv("SANDBOX_API_KEY");
	if (!value || !*value)
		return -ENOENT;
	if (!is_token(value))
		return call_fault(c, EINVAL, NULL, "$SANDBOX_API_KEY is no token: one word, in ASCII");
	*out = strdup(value);
	return *out ? 0 : -ENOMEM;
}

static int from_configuration(struct call *c, char **out)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	AUTO_BUF path = BUF_INIT;
	if (config && *config == '/')
		buf_printf(&path, "%s/sandboxfs/token", config);
	else if (home && *home == '/')
		buf_printf(&path, "%s/.config/sandboxfs/token", home);
	else
		return -ENOENT;
	return buf_error(&path) ? -ENOMEM : from_file(c, path.data, true, out);
}

int token_read(const struct options *o, struct call *c, bool others, char **out)
{
	*out = NULL;
	int err = o->token_file ? from_file(c, o->token_file, false, out) : -ENOENT;
	if (err == -ENOENT && !o->token_file && others)
		err = from_environment(c, out);
	if (err == -ENOENT && !o->token_file && others)
		err = from_configuration(c, out);
	if (err == -ENOENT && !o->token_file)
		return 0;
	/*
	 * What fails here is not worth a refusal: a core file is the user's own. The limit alone does not hold where a program gets them
	 * (core(5)); closed, its memory and environment are no other process's of this user to read, either.
	 */
	const struct rlimit none = {0, 0};
	if (!err) {
		(void)setrlimit(RLIMIT_CORE, &none);
		(void)prctl(PR_SET_DUMPABLE, 0L);
	}
	return err;
}

void token_free(char *token)
{
	if (token)
		explicit_bzero(token, strlen(token));
	free(token);
}
