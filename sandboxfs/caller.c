/* Reads what waits for a caller: see caller.h. */
#include "caller.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

/* The same when tried again? Anything else says that there is nobody, or nobody to be looked at. */
static bool is_ours(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOMEM || err == EINTR;
}

bool caller_status_gives_up(FILE *status, bool patient)
{
	static const int stops[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGKILL, SIGALRM};
	uint64_t thread = 0, process = 0, blocked = 0, caught = 0, wanted = 0;
	const struct {
		const char *name;
		uint64_t *mask;
	} masks[] = {
		{"SigPnd:", &thread}, {"ShdPnd:", &process}, {"SigBlk:", &blocked}, {"SigCgt:", &caught}};
	enum { MASKS = sizeof masks / sizeof *masks };
	AUTO_FREE char *line = NULL;
	size_t size = 0;
	unsigned found = 0;

	errno = 0;
	/* By lines, since Groups:, which comes first, has up to 65536 numbers. */
	while (found < MASKS && getline(&line, &size, status) >= 0)
		for (size_t i = 0; i < MASKS; i++) {
			size_t n = strlen(masks[i].name);
			if (strncmp(line, masks[i].name, n) != 0)
				continue;
			*masks[i].mask = strtoull(line + n, NULL, 16);
			found++;
		}
	if (found < MASKS)
		return !is_ours(errno);
	for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
		wanted |= 1ULL << (stops[i] - 1);
	if (patient)
		wanted &= ~(caught & 1ULL << (SIGALRM - 1));
	return ((thread | process) & ~blocked & wanted) != 0;
}

bool caller_gives_up(pid_t tid, bool patient)
{
	char path[64];

	if (tid <= 0)
		return true; /* of another pid namespace: nothing can be known, believe the interrupt */
	snprintf(path, sizeof path, "/proc/%d/status", (int)tid);
	FILE *f = fopen(path, "re");
	if (!f)
		return !is_ours(errno);
	bool so = caller_status_gives_up(f, patient);
	fclose(f);
	return so;
}
