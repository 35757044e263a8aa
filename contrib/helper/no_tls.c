/*
 * Stands in for each function of GnuTLS that a static libmicrohttpd names. Debian builds that library with TLS, of which sandboxd uses
 * nothing; GnuTLS and what it needs would make the program that is carried into sandboxes five times as large. Only the library's start
 * calls one, and is told that all is well; the link (contrib/helper/link) gives the others this address too.
 */
int no_tls(void);

int no_tls(void)
{
	return 0;
}
