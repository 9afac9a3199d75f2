#!/usr/bin/env bash
# How the keystores beside this file were made: by the keytool of OpenJDK 17, whose default is PKCS12.
# The tests read them as they are: Java is not needed for that.
set -euo pipefail
cd "$(dirname "$0")"
rm -f -- *.p12 *.jks
pass=(-storepass changeit)
key=(-genkeypair -keyalg RSA -keysize 2048 -validity 36500)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# An authority, an authority below it, and who is in `chain.p12` with all of both.
keytool "${key[@]}" -alias root -dname "CN=Test root" -ext bc:c -keystore "$work/root.p12" "${pass[@]}"
keytool "${key[@]}" -alias middle -dname "CN=Test middle" -keystore "$work/middle.p12" "${pass[@]}"
keytool "${key[@]}" -alias server -dname "CN=localhost" -keystore chain.p12 "${pass[@]}"
keytool -exportcert -rfc -alias root -keystore "$work/root.p12" "${pass[@]}" >"$work/root.pem"
keytool -certreq -alias middle -keystore "$work/middle.p12" "${pass[@]}" |
    keytool -gencert -rfc -alias root -ext bc:c -validity 36500 -keystore "$work/root.p12" "${pass[@]}" >"$work/middle.pem"
cat "$work/root.pem" "$work/middle.pem" >"$work/both.pem"
keytool -importcert -noprompt -alias middle -file "$work/both.pem" -keystore "$work/middle.p12" "${pass[@]}"
keytool -certreq -alias server -keystore chain.p12 "${pass[@]}" |
    keytool -gencert -rfc -alias middle -ext san=dns:localhost,ip:127.0.0.1 -validity 36500 \
        -keystore "$work/middle.p12" "${pass[@]}" >"$work/server.pem"
cat "$work/root.pem" "$work/middle.pem" "$work/server.pem" >"$work/all.pem"
keytool -importcert -noprompt -alias server -file "$work/all.pem" -keystore chain.p12 "${pass[@]}"

# Two keys, with a password of their own; and what Java 8 writes.
keytool "${key[@]}" -alias zebra -dname "CN=first" -keystore two.p12 -storepass "in-secret"
keytool "${key[@]}" -alias ant -dname "CN=second" -keystore two.p12 -storepass "in-secret"
keytool "${key[@]}" -alias server -dname "CN=old" -keystore java8.p12 "${pass[@]}" -J-Dkeystore.pkcs12.legacy

# No key; and the form that is no PKCS12.
keytool -importcert -noprompt -alias root -file "$work/root.pem" -keystore trusted.p12 "${pass[@]}"
keytool "${key[@]}" -alias server -dname "CN=jks" -keystore old.jks -storetype JKS "${pass[@]}" -keypass changeit
